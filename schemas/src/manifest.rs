//! The schema-id manifest: which id stands for which committed schema.
//!
//! Ids travel in every record for ever, so they are committed, never assigned at run time. A
//! published schema file must never change: the manifest holds its fingerprint, and a test
//! compares.

use std::sync::LazyLock;

use apache_avro::schema_compatibility::{Compatibility, SchemaCompatibility};

/// One published schema version.
#[derive(Debug, Clone, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SchemaVersion {
    /// Confluent schema id, as it stands in the frame.
    pub id: u32,
    /// Folder under `schemas/avro`.
    pub schema: String,
    /// Version within the subject, from 1.
    pub version: u32,
    /// SHA-256 of the file's text.
    pub sha256: String,
    /// The schema's text, exactly as committed.
    #[serde(skip)]
    pub text: &'static str,
}

#[derive(serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    schema: Vec<SchemaVersion>,
}

/// Every committed schema file: (folder, version, text). A new version is one line here, one in
/// `manifest.toml`.
const FILES: &[(&str, u32, &str)] =
    &[("virksomhet", 1, include_str!("../avro/virksomhet/v1.avsc")), ("proevemaaling", 1, include_str!("../avro/proevemaaling/v1.avsc"))];

static MANIFEST: LazyLock<Vec<SchemaVersion>> = LazyLock::new(|| {
    #[expect(clippy::expect_used, reason = "compiled in; a test parses it")]
    let file: File = toml::from_str(include_str!("../manifest.toml")).expect("manifest.toml is valid");
    file.schema
        .into_iter()
        .filter_map(|entry| {
            let text = FILES.iter().find(|(schema, version, _)| *schema == entry.schema && *version == entry.version)?.2;
            Some(SchemaVersion { text, ..entry })
        })
        .collect()
});

/// All published schema versions, by ascending id.
pub fn all() -> &'static [SchemaVersion] {
    &MANIFEST
}

/// The version that `id` stands for.
pub fn by_id(id: u32) -> Option<&'static SchemaVersion> {
    MANIFEST.iter().find(|entry| entry.id == id)
}

/// The newest version of a schema folder.
pub fn latest(schema: &str) -> Option<&'static SchemaVersion> {
    MANIFEST.iter().filter(|entry| entry.schema == schema).max_by_key(|entry| entry.version)
}

/// Whether a schema's text means a published version: the same JSON, or the same Avro once
/// docs and aliases are left out.
pub fn is_same(version: &SchemaVersion, text: &str) -> bool {
    let canonical = |text: &str| apache_avro::Schema::parse_str(text).ok().map(|schema| schema.canonical_form());
    text == version.text || canonical(text).is_some_and(|given| Some(given) == canonical(version.text))
}

/// Whether a schema's text and a published version can read each other in full; none if the text
/// is no schema.
pub fn is_compatible(version: &SchemaVersion, text: &str) -> Option<bool> {
    let given = apache_avro::Schema::parse_str(text).ok()?;
    let published = apache_avro::Schema::parse_str(version.text).ok()?;
    let reads = |writer, reader| matches!(SchemaCompatibility::can_read(writer, reader), Ok(Compatibility::Full));
    Some(reads(&given, &published) && reads(&published, &given))
}

#[cfg(test)]
mod tests {
    use super::*;
    use sha2::{Digest, Sha256};

    #[test]
    fn every_file_is_listed_once_and_no_published_file_has_changed() {
        let file: File = toml::from_str(include_str!("../manifest.toml")).unwrap();
        assert_eq!(file.schema.len(), FILES.len());
        assert_eq!(all().len(), FILES.len(), "an entry without a file, or the other way round");
        let mut ids: Vec<u32> = all().iter().map(|entry| entry.id).collect();
        ids.dedup();
        assert_eq!(ids.len(), FILES.len(), "ids are unique and ascending");
        for entry in all() {
            let sha256: String = Sha256::digest(entry.text).iter().map(|byte| format!("{byte:02x}")).collect();
            assert_eq!(sha256, entry.sha256, "{} v{} was changed after it was published", entry.schema, entry.version);
        }
    }

    #[test]
    fn the_folder_on_disk_and_the_manifest_agree() {
        let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("avro");
        let mut found = Vec::new();
        for folder in std::fs::read_dir(root).unwrap() {
            let folder = folder.unwrap();
            for file in std::fs::read_dir(folder.path()).unwrap() {
                let name = file.unwrap().file_name().into_string().unwrap();
                let version: u32 = name.strip_prefix('v').and_then(|rest| rest.strip_suffix(".avsc")).unwrap().parse().unwrap();
                found.push((folder.file_name().into_string().unwrap(), version));
            }
        }
        found.sort();
        let mut listed: Vec<_> = all().iter().map(|entry| (entry.schema.clone(), entry.version)).collect();
        listed.sort();
        assert_eq!(found, listed);
    }
}
