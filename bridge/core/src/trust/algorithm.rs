//! Signature algorithms of JOSE that are taken: RSA and elliptic curves, of public keys alone.
//!
//! HelseID knows ES512 too; the cryptography in use has no P-521, so that one is refused. Must never know
//! `none`, nor anything with a shared secret.

use ring::signature::{
    ECDSA_P256_SHA256_FIXED, ECDSA_P384_SHA384_FIXED, EcdsaVerificationAlgorithm, RSA_PKCS1_2048_8192_SHA256, RSA_PKCS1_2048_8192_SHA384,
    RSA_PKCS1_2048_8192_SHA512, RSA_PSS_2048_8192_SHA256, RSA_PSS_2048_8192_SHA384, RSA_PSS_2048_8192_SHA512, RsaParameters,
};

/// An algorithm.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Algorithm {
    /// RSASSA-PKCS1-v1_5 with SHA-256.
    Rs256,
    /// With SHA-384.
    Rs384,
    /// With SHA-512.
    Rs512,
    /// RSASSA-PSS with SHA-256.
    Ps256,
    /// With SHA-384.
    Ps384,
    /// With SHA-512.
    Ps512,
    /// ECDSA on P-256 with SHA-256.
    Es256,
    /// ECDSA on P-384 with SHA-384.
    Es384,
}

/// How it is verified, which says the kind of key.
pub(super) enum Verification {
    /// With an RSA key.
    Rsa(&'static RsaParameters),
    /// With a key on a curve.
    Curve(&'static EcdsaVerificationAlgorithm),
}

impl Algorithm {
    /// All of them.
    pub const ALL: [Self; 8] = [Self::Ps256, Self::Ps384, Self::Ps512, Self::Rs256, Self::Rs384, Self::Rs512, Self::Es256, Self::Es384];

    /// Its name in JOSE.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Rs256 => "RS256",
            Self::Rs384 => "RS384",
            Self::Rs512 => "RS512",
            Self::Ps256 => "PS256",
            Self::Ps384 => "PS384",
            Self::Ps512 => "PS512",
            Self::Es256 => "ES256",
            Self::Es384 => "ES384",
        }
    }

    /// The one of that name.
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|algorithm| algorithm.name() == name)
    }

    pub(super) fn verification(self) -> Verification {
        match self {
            Self::Rs256 => Verification::Rsa(&RSA_PKCS1_2048_8192_SHA256),
            Self::Rs384 => Verification::Rsa(&RSA_PKCS1_2048_8192_SHA384),
            Self::Rs512 => Verification::Rsa(&RSA_PKCS1_2048_8192_SHA512),
            Self::Ps256 => Verification::Rsa(&RSA_PSS_2048_8192_SHA256),
            Self::Ps384 => Verification::Rsa(&RSA_PSS_2048_8192_SHA384),
            Self::Ps512 => Verification::Rsa(&RSA_PSS_2048_8192_SHA512),
            Self::Es256 => Verification::Curve(&ECDSA_P256_SHA256_FIXED),
            Self::Es384 => Verification::Curve(&ECDSA_P384_SHA384_FIXED),
        }
    }
}
