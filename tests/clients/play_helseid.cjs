// Plays HelseID: oidc-provider, set up as HelseID describes itself.
//
// play_helseid.cjs keys            prints key pairs, one for each algorithm and use: JWK, and PKCS #8 for who signs
// play_helseid.cjs serve <port>    reads its settings as JSON from the file named next, and serves until it is killed
const crypto = require('node:crypto');
const fs = require('node:fs');

const prefix = 'helseid://claims/client/claims/';

function keyPair(name) {
  const { publicKey, privateKey } = name === 'RSA'
    ? crypto.generateKeyPairSync('rsa', { modulusLength: 2048 })
    : crypto.generateKeyPairSync('ec', { namedCurve: name });
  const pkcs8 = privateKey.export({ type: 'pkcs8', format: 'der' }).toString('base64url');
  return { public: publicKey.export({ format: 'jwk' }), private: privateKey.export({ format: 'jwk' }), pkcs8 };
}

function serve(port, { audience, scopes, keys, client, algorithms, ttl_s }) {
  const { Provider, errors } = require('oidc-provider');
  const issuer = `http://127.0.0.1:${port}`;
  const details = new WeakMap();
  // One client for each algorithm that tokens may be signed with; its name ends in it.
  const clients = algorithms.map((alg) => ({
    client_id: `klient-${alg}`,
    token_endpoint_auth_method: 'private_key_jwt',
    dpop_bound_access_tokens: true,
    grant_types: ['client_credentials'],
    response_types: [],
    redirect_uris: [],
    jwks: { keys: client },
  }));
  const provider = new Provider(issuer, {
    clients,
    jwks: { keys },
    scopes: [],
    clientAuthMethods: ['private_key_jwt'],
    routes: { token: '/connect/token', jwks: '/.well-known/openid-configuration/jwks' },
    features: {
      devInteractions: { enabled: false },
      clientCredentials: { enabled: true },
      fapi: { enabled: true, profile: '2.0' },
      dPoP: { enabled: true, nonceSecret: crypto.randomBytes(32), requireNonce: () => true, allowReplay: false },
      resourceIndicators: {
        enabled: true,
        defaultResource: () => audience,
        useGrantedResource: () => true,
        getResourceServerInfo: (ctx, resource, { clientId }) => ({
          scope: scopes.join(' '),
          audience,
          accessTokenFormat: 'jwt',
          accessTokenTTL: ttl_s,
          jwt: { sign: { alg: clientId.slice('klient-'.length) } },
        }),
      },
    },
    enabledJWA: {
      clientAuthSigningAlgValues: algorithms,
      dPoPSigningAlgValues: ['PS256', 'ES256'],
    },
    assertJwtClientAuthClaimsAndHeader(ctx, claims, header) {
      if (header.typ !== 'client-authentication+jwt') throw new Error('typ');
      details.set(ctx.req, claims.assertion_details);
    },
    extraTokenClaims(ctx) {
      const identifier = details.get(ctx.req)?.practitioner_role.organization.identifier;
      // A client with one organisation: HelseID knows it.
      if (identifier?.system === 'urn:oid:2.16.578.1.12.4.1.4.101') {
        return { [`${prefix}orgnr_parent`]: '312345676', [`${prefix}orgnr_child`]: identifier.value };
      }
      if (identifier?.system !== 'urn:oid:1.0.6523') return {};
      const [, , parent, child] = identifier.value.split(':');
      return { [`${prefix}orgnr_parent`]: parent, ...(child && { [`${prefix}orgnr_child`]: child }) };
    },
    formats: {
      customizers: {
        jwt(ctx, token, { payload }) {
          if (!payload.scope) throw new errors.InvalidScope('the client has none of these scopes');
          delete payload.sub;
          payload.nbf = payload.iat;
          // Both forms are met.
          if (payload.client_id.endsWith('256')) payload.scope = payload.scope.split(' ');
        },
      },
    },
  });
  provider.on('grant.success', () => console.log('granted'));
  provider.on('server_error', (ctx, error) => console.error(error));
  provider.on('grant.error', (ctx, error) => console.error(error));
  provider.listen(port, '127.0.0.1');
}

const [what, port, settings] = process.argv.slice(2);
if (what === 'keys') {
  const pairs = Object.fromEntries(['issuer', 'next', 'client', 'thief'].map((who) => [who, {
    RSA: keyPair('RSA'), 'P-256': keyPair('P-256'), 'P-384': keyPair('P-384'),
  }]));
  console.log(JSON.stringify(pairs));
} else {
  serve(Number(port), JSON.parse(fs.readFileSync(settings, 'utf8')));
}
