//! The rules of the house that no compiler and no linter checks: who may depend on whom, which crate may use which library,
//! that both databases have one schema, and a few words that must not be in the code.
//!
//! docs/architecture.md says why each rule is there.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use mdm_tests::{Backend, Database};
use serde_json::Value;

/// Crates and their levels. A crate may use crates on lower levels only.
const LEVELS: [(&str, u8); 21] = [
    ("mdm-core", 0),
    ("outbound", 0),
    ("simulator", 0),
    ("store", 1),
    ("ade", 2),
    ("attestation", 2),
    ("ca", 2),
    ("commands", 2),
    ("issuer", 2),
    ("push", 2),
    ("signin", 2),
    ("policy", 3),
    ("enroll", 4),
    ("rollout", 4),
    ("webhook", 4),
    ("account", 5),
    ("renewal", 5),
    ("checkin", 6),
    ("api", 6),
    ("assay", 7),
    ("mdm-tests", 8),
];

/// Crates that only these may use.
const ONLY_USED_BY: [(&str, &[&str]); 6] = [
    // The pretend devices are for the pilot, for load and for tests; they share no codec with the server.
    ("simulator", &["assay", "mdm-tests"]),
    // Everyone else writes "push due"; the API asks it only to read an uploaded push certificate.
    ("push", &["assay", "api", "mdm-tests"]),
    ("sqlx", &["store", "mdm-tests"]),
    ("openssl", &["mdm-core", "simulator", "mdm-tests"]),
    ("plist", &["mdm-core"]),
    ("a2", &["push"]),
];

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_path_buf()
}

/// Each workspace member with the names of its direct dependencies of every kind.
fn dependencies() -> BTreeMap<String, BTreeSet<String>> {
    let output = Command::new(env!("CARGO"))
        .args(["metadata", "--no-deps", "--offline", "--format-version", "1"])
        .current_dir(root())
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let metadata: Value = serde_json::from_slice(&output.stdout).unwrap();
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    metadata["packages"]
        .as_array()
        .unwrap()
        .iter()
        .map(|package| {
            let used = package["dependencies"].as_array().unwrap().iter().map(|d| text(&d["name"])).collect();
            (text(&package["name"]), used)
        })
        .collect()
}

/// All files below a folder whose name ends so, by path from the root. What git ignores is left out.
fn files(folder: &str, end: &str) -> Vec<(String, String)> {
    fn walk(folder: &Path, found: &mut Vec<PathBuf>) {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            let name = path.file_name().unwrap().to_string_lossy().into_owned();
            if name == "target" || name.starts_with('.') {
                continue;
            }
            if path.is_dir() { walk(&path, found) } else { found.push(path) }
        }
    }
    let root = root();
    let mut found = Vec::new();
    walk(&root.join(folder), &mut found);
    found.sort();
    found
        .into_iter()
        .filter(|path| path.to_string_lossy().ends_with(end))
        .map(|path| {
            let text = String::from_utf8_lossy(&fs::read(&path).unwrap()).into_owned();
            (path.strip_prefix(&root).unwrap().to_string_lossy().into_owned(), text)
        })
        .collect()
}

/// The Rust files of all crates, tests and this file included.
fn sources() -> Vec<(String, String)> {
    files("", ".rs")
}

/// Code without comments, line by line with numbers from 1.
fn code(text: &str) -> impl Iterator<Item = (usize, &str)> {
    text.lines()
        .enumerate()
        .map(|(n, line)| (n + 1, line.split("//").next().unwrap_or("")))
        .filter(|(_, l)| !l.is_empty())
}

fn none(what: &str, found: &[String]) {
    assert!(found.is_empty(), "{what}:\n  {}", found.join("\n  "));
}

#[test]
fn crates_depend_downwards_only() {
    let levels = BTreeMap::from(LEVELS);
    let dependencies = dependencies();
    let members: BTreeSet<&str> = dependencies.keys().map(String::as_str).collect();
    assert_eq!(members, levels.keys().copied().collect(), "every crate has its level here and in docs/architecture.md");
    let mut wrong = Vec::new();
    for (member, used) in &dependencies {
        for name in used.iter().filter(|name| levels.contains_key(name.as_str())) {
            if levels[name.as_str()] >= levels[member.as_str()] {
                wrong.push(format!(
                    "{member} (level {}) uses {name} (level {})",
                    levels[member.as_str()],
                    levels[name.as_str()]
                ));
            }
        }
    }
    none("dependencies that do not point downwards", &wrong);
}

#[test]
fn libraries_stay_behind_their_walls() {
    let mut wrong = Vec::new();
    for (member, used) in dependencies() {
        for (name, allowed) in ONLY_USED_BY {
            if used.contains(name) && !allowed.contains(&member.as_str()) {
                wrong.push(format!("{member} uses {name}; only {} may", allowed.join(", ")));
            }
        }
        if member == "simulator" {
            wrong.extend(
                used.iter()
                    .filter(|name| LEVELS.iter().any(|(ours, _)| ours == name))
                    .map(|name| format!("simulator uses {name}")),
            );
        }
    }
    none("dependencies that a wall forbids", &wrong);
}

#[test]
fn openssl_is_called_in_the_crypto_folder_only() {
    let found: Vec<String> = files("mdm-core/src", ".rs")
        .iter()
        .filter(|(path, _)| !path.starts_with("mdm-core/src/crypto"))
        .flat_map(|(path, text)| {
            code(text).filter(|(_, line)| line.contains("openssl::")).map(move |(n, _)| format!("{path}:{n}"))
        })
        .collect();
    none("openssl outside mdm-core/src/crypto", &found);
}

#[test]
fn the_plist_crate_is_called_in_one_file_only() {
    let found: Vec<String> = files("mdm-core/src", ".rs")
        .iter()
        .filter(|(path, _)| path != "mdm-core/src/plist.rs")
        .flat_map(|(path, text)| {
            // `plist::` is our own module where a file imports it as one.
            let imports_ours = text.contains("use crate::plist;") || text.contains("use crate::plist::{self");
            code(text)
                .filter(move |(_, line)| {
                    line.contains(" ::plist::")
                        || line.contains("use plist::")
                        || (!imports_ours
                            && line.match_indices("plist::").any(|(at, _)| {
                                let before = line[..at].chars().next_back().unwrap_or(' ');
                                before != ':' && before != '_' && !before.is_alphanumeric()
                            }))
                })
                .map(move |(n, line)| format!("{path}:{n}: {}", line.trim()))
        })
        .collect();
    none("the plist crate outside mdm-core/src/plist.rs, which holds the limits", &found);
}

#[test]
fn no_file_is_named_after_nothing() {
    let empty_words = ["utils", "util", "helpers", "helper", "common", "manager", "misc"];
    let found: Vec<String> = sources()
        .into_iter()
        .map(|(path, _)| path)
        .filter(|path| {
            Path::new(path).with_extension("").iter().any(|part| empty_words.contains(&&*part.to_string_lossy()))
        })
        .collect();
    none("files whose name says nothing", &found);
}

#[test]
fn nothing_is_silenced_or_put_off() {
    // Put together here, so that this file does not find itself.
    let silent =
        [format!("#[{}(", "allow"), format!("#![{}(", "allow"), format!("#[{}", "ignore"), format!("TO{}", "DO")];
    let found: Vec<String> = sources()
        .iter()
        .flat_map(|(path, text)| {
            text.lines()
                .enumerate()
                .filter(|(_, line)| silent.iter().any(|word| line.contains(word)))
                // Not a test, but a program that a test starts and ends.
                .filter(|(_, line)| !line.contains("runs only as the process that"))
                .map(move |(n, line)| format!("{path}:{}: {}", n + 1, line.trim()))
        })
        .collect();
    none("lints that are allowed without a reason, tests that are skipped, work put off", &found);
}

/// A trait needs two implementations that exist: `Apns` has its two clients, `Busy` the errors of several
/// crates, the simulator's `Stream` TLS and plain TCP.
#[test]
fn traits_have_two_implementations() {
    let known = ["Apns", "Busy", "Stream"];
    let found: Vec<String> = sources()
        .iter()
        .filter(|(path, _)| path.contains("/src/"))
        .flat_map(|(path, text)| {
            code(text).filter_map(move |(n, line)| {
                let rest = line.trim_start().trim_start_matches("pub ").trim_start_matches("pub(crate) ");
                let name = rest.strip_prefix("trait ")?.split(|c: char| !c.is_alphanumeric()).next()?;
                (!known.contains(&name)).then(|| format!("{path}:{n}: trait {name}"))
            })
        })
        .collect();
    none("traits besides these", &found);
}

/// docs/logging.md is the list of fields with a dot in their name.
#[test]
fn log_fields_are_the_listed_ones() {
    let list = fs::read_to_string(root().join("docs/logging.md")).unwrap();
    let found: Vec<String> = sources()
        .iter()
        .filter(|(path, _)| path.contains("/src/") && !path.starts_with("simulator/"))
        .flat_map(|(path, text)| {
            let list = &list;
            code(text).flat_map(move |(n, line)| {
                line.match_indices(" = ")
                    .filter(|(at, _)| line[at + 3..].starts_with(['%', '?']))
                    .filter_map(|(at, _)| line[..at].rsplit([' ', '(', ',']).next())
                    .map(|name| name.trim_matches('"'))
                    .filter(|name| name.contains('.') && !list.contains(&format!("`{name}`")))
                    .map(|name| format!("{path}:{n}: {name}"))
                    .collect::<Vec<_>>()
            })
        })
        .collect();
    none("log fields that docs/logging.md does not list", &found);
}

/// SQL is checked by running it, on both databases; so every function of the store must be run.
#[test]
fn every_function_of_the_store_is_in_its_tests() {
    let stories: String =
        files("tests/tests/store", ".rs").into_iter().chain(files("tests/src", ".rs")).map(|(_, text)| text).collect();
    let mut missing = Vec::new();
    for (path, text) in files("store/src", ".rs") {
        let module = Path::new(&path).file_stem().unwrap().to_string_lossy().into_owned();
        for line in text.split("#[cfg(test)]").next().unwrap().lines() {
            let Some(rest) = line.trim_start().strip_prefix("pub async fn ") else { continue };
            let name: String = rest.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect();
            let method = line.starts_with(' ');
            let called = if method { format!(".{name}(") } else { format!("{module}::{name}(") };
            let also = if method { format!("Store::{name}(") } else { format!("store::{name}(") };
            // A file below a folder may be handed out by the folder's module.
            let folder = Path::new(&path).parent().and_then(Path::file_name).unwrap().to_string_lossy();
            let handed_out = !method && stories.contains(&format!("{folder}::{name}("));
            if !stories.contains(&called) && !stories.contains(&also) && !handed_out {
                missing.push(format!("{path}: {name}"));
            }
        }
    }
    none("functions of the store that tests/tests/store does not call", &missing);
}

/// An operator can only watch what is described.
#[test]
fn metrics_are_described() {
    let described = fs::read_to_string(root().join("docs/operations.md")).unwrap();
    let mut missing = Vec::new();
    for (path, text) in sources().iter().filter(|(path, _)| path.contains("/src/")) {
        for kind in ["counter!(", "gauge!(", "histogram!("] {
            for after in text.split(kind).skip(1) {
                let name = after.trim_start().strip_prefix('"').and_then(|rest| rest.split('"').next()).unwrap_or("");
                if !name.is_empty() && !described.contains(&format!("`{name}`")) {
                    missing.push(format!("{path}: {name}"));
                }
            }
        }
    }
    none("metrics that docs/operations.md does not describe", &missing);
}

#[test]
fn links_in_the_documents_lead_somewhere() {
    let root = root();
    let mut wrong = Vec::new();
    for (path, text) in files("", ".md") {
        for target in text.split("](").skip(1).filter_map(|rest| rest.split(')').next()) {
            let target = target.split('#').next().unwrap_or("");
            if target.is_empty() || target.contains("://") {
                continue;
            }
            if !root.join(&path).parent().unwrap().join(target).exists() {
                wrong.push(format!("{path}: {target}"));
            }
        }
    }
    none("links to files that are not there", &wrong);
}

/// Everything that can be set stands in the example, with its default.
#[test]
fn the_example_configuration_names_every_key() {
    let mut config = fs::read_to_string(root().join("server/src/config.rs")).unwrap();
    config.extend(files("server/src/config", ".rs").into_iter().map(|(_, text)| text));
    let example = fs::read_to_string(root().join("deploy/assay.example.toml")).unwrap();
    let missing: Vec<String> = config
        .lines()
        .filter_map(|line| line.strip_prefix("    pub ")?.split_once(": "))
        .filter(|(key, _)| key.chars().all(|c| c.is_ascii_lowercase() || c == '_'))
        .map(|(key, _)| key.to_owned())
        .filter(|key| {
            let named = [format!("{key} ="), format!("#{key} ="), format!("[{key}]")];
            // A key of an inline table stands behind its brace or a comma.
            let within = [format!("{{ {key} = "), format!(", {key} = ")];
            !example.lines().any(|line| {
                named.iter().any(|start| line.starts_with(start.as_str()))
                    || within.iter().any(|key| line.contains(key))
            })
        })
        .collect();
    none("keys that deploy/assay.example.toml does not name", &missing);
}

#[test]
fn the_container_is_built_with_the_same_rust() {
    let toolchain = fs::read_to_string(root().join("rust-toolchain.toml")).unwrap();
    let version = toolchain.split("channel = \"").nth(1).unwrap().split('"').next().unwrap();
    let dockerfile = fs::read_to_string(root().join("deploy/Dockerfile")).unwrap();
    assert!(dockerfile.contains(&format!("FROM rust:{version}-")), "deploy/Dockerfile: FROM rust:{version}-…");
    assert!(
        dockerfile.contains(&format!("RUSTUP_TOOLCHAIN={version}\n")),
        "deploy/Dockerfile: RUSTUP_TOOLCHAIN={version}"
    );
}

/// Apple's devices take 401 from an MDM server as "you are no longer managed". Only account-driven enrollment knows it otherwise,
/// and only with a challenge: so there is one place for enrolled devices and one for those that are not yet, and each
/// writes `WWW-Authenticate` (ADR 0004).
#[test]
fn th_01_the_device_edge_answers_401_with_a_challenge_only() {
    let says = |line: &str| line.contains("UNAUTHORIZED") || line.contains("from_u16(401");
    let places = [("checkin/src/reply.rs", "SignInAgain"), ("account/src/http.rs", "WWW_AUTHENTICATE")];
    let mut found = Vec::new();
    let mut answered = BTreeSet::new();
    for folder in ["checkin/src", "account/src", "enroll/src", "issuer/src", "renewal/src", "signin/src"] {
        for (path, text) in files(folder, ".rs") {
            let lines: Vec<(usize, &str)> = code(&text).collect();
            for (at, (n, line)) in lines.iter().enumerate().filter(|(_, (_, line))| says(line)) {
                let near: String = lines.iter().skip(at).take(2).map(|(_, line)| *line).collect();
                let place = places.iter().find(|(place, _)| *place == path);
                match place {
                    // Which status an error has, for the log and the figures.
                    Some((_, word)) if line.contains(word) && line.contains("=>") => {}
                    Some(_) if near.contains("WWW_AUTHENTICATE") && answered.insert(path.clone()) => {}
                    _ => found.push(format!("{path}:{n}")),
                }
            }
        }
    }
    none("401 at the device edge, besides the two challenges of account-driven enrollment", &found);
    assert_eq!(answered.len(), places.len(), "both challenges are where this rule looks for them: {answered:?}");
}

#[test]
fn both_databases_have_the_same_migrations() {
    let names = |dialect: &str| -> Vec<String> {
        files(&format!("migrations/{dialect}"), "")
            .into_iter()
            .map(|(path, _)| Path::new(&path).file_name().unwrap().to_string_lossy().into_owned())
            .collect()
    };
    let sqlite = names("sqlite");
    assert_eq!(sqlite, names("postgres"));
    assert!(!sqlite.is_empty());
    let embedded = fs::read_to_string(root().join("store/src/migrate.rs")).unwrap();
    for name in sqlite {
        let name = name.strip_suffix(".sql").unwrap();
        assert_eq!(embedded.matches(&format!("\"{name}\"")).count(), 2, "store/src/migrate.rs embeds {name} for both");
    }
}

/// A migration's words with PostgreSQL's spelling and SQLite's made the same: types, truth values, counted ids.
/// What stands between `-- begin` and `-- end` is one database's own way to say it.
fn words(sql: &str) -> Vec<String> {
    let mut own = false;
    let sql: String = sql
        .lines()
        .filter(|line| {
            own = (own || line.starts_with("-- begin")) && !line.starts_with("-- end");
            !own
        })
        .flat_map(|line| [line, "\n"])
        .collect();
    let text: String = sql.lines().map(|line| line.split("--").next().unwrap_or("").to_owned() + "\n").collect();
    let spaced = text.replace(['(', ')', ',', ';'], " | ");
    let spaced = spaced.replace("GENERATED ALWAYS AS IDENTITY", "").replace("AUTOINCREMENT", "").replace("STRICT", "");
    spaced
        .split_whitespace()
        .map(|word| match word {
            "BYTEA" | "UUID" => "BLOB".to_owned(),
            "BIGINT" | "BOOLEAN" => "INTEGER".to_owned(),
            "FALSE" => "0".to_owned(),
            "TRUE" => "1".to_owned(),
            other => other.to_owned(),
        })
        .collect()
}

/// Not only columns: checks, defaults, keys and indexes too.
#[test]
fn both_migrations_say_the_same() {
    for (path, sqlite) in files("migrations/sqlite", ".sql") {
        let other = path.replace("sqlite", "postgres");
        let postgres = fs::read_to_string(root().join(&other)).unwrap();
        let (sqlite, postgres) = (words(&sqlite), words(&postgres));
        let at = sqlite.iter().zip(&postgres).position(|(a, b)| a != b).unwrap_or(sqlite.len().min(postgres.len()));
        let near =
            |words: &[String]| words.iter().skip(at.saturating_sub(8)).take(16).cloned().collect::<Vec<_>>().join(" ");
        assert!(sqlite == postgres, "{path} and {other} differ:\n  {}\n  {}", near(&sqlite), near(&postgres));
    }
}

/// A table's columns: name → (kind of value, may it be null).
type Columns = BTreeMap<String, (&'static str, bool)>;

/// SQLite has fewer types; this is what each of PostgreSQL's is there, and the only types that the schema uses.
fn kind(declared: &str) -> &'static str {
    match declared.to_ascii_lowercase().as_str() {
        "integer" | "bigint" | "boolean" => "integer",
        "text" => "text",
        "blob" | "bytea" | "uuid" => "blob",
        "real" | "double precision" => "real",
        other => panic!("the schema uses a type that is not in the list: {other}"),
    }
}

async fn sqlite_schema(url: &str) -> BTreeMap<String, Columns> {
    use sqlx::{ConnectOptions, Row, sqlite::SqliteConnectOptions};
    let mut connection = url.parse::<SqliteConnectOptions>().unwrap().connect().await.unwrap();
    let rows = sqlx::query(
        "SELECT m.name AS tbl, c.name AS col, c.type AS kind, c.\"notnull\" = 1 OR c.pk > 0 AS filled
           FROM sqlite_master m, pragma_table_info(m.name) c
          WHERE m.type = 'table' AND m.name NOT LIKE 'sqlite_%' AND m.name <> '_sqlx_migrations'",
    )
    .fetch_all(&mut connection)
    .await
    .unwrap();
    let mut tables: BTreeMap<String, Columns> = BTreeMap::new();
    for row in rows {
        let column = (kind(&row.get::<String, _>("kind")), row.get::<i64, _>("filled") == 0);
        tables.entry(row.get("tbl")).or_default().insert(row.get("col"), column);
    }
    tables
}

async fn postgres_schema(url: &str) -> BTreeMap<String, Columns> {
    use sqlx::{ConnectOptions, Row, postgres::PgConnectOptions};
    let mut connection = url.parse::<PgConnectOptions>().unwrap().connect().await.unwrap();
    let rows = sqlx::query(
        "SELECT table_name::text AS tbl, column_name::text AS col, data_type::text AS kind, is_nullable = 'NO' AS filled
           FROM information_schema.columns
          WHERE table_schema = 'public' AND table_name <> '_sqlx_migrations'",
    )
    .fetch_all(&mut connection)
    .await
    .unwrap();
    let mut tables: BTreeMap<String, Columns> = BTreeMap::new();
    for row in rows {
        let column = (kind(&row.get::<String, _>("kind")), !row.get::<bool, _>("filled"));
        tables.entry(row.get("tbl")).or_default().insert(row.get("col"), column);
    }
    tables
}

#[tokio::test]
async fn both_databases_have_the_same_schema() {
    let sqlite = Database::new(Backend::Sqlite).await;
    let postgres = Database::new(Backend::Postgres).await;
    let ours = sqlite_schema(&sqlite.place.url).await;
    let theirs = postgres_schema(&postgres.place.url).await;
    assert!(ours.contains_key("enrollment"), "{:?}", ours.keys());
    assert_eq!(ours.keys().collect::<Vec<_>>(), theirs.keys().collect::<Vec<_>>(), "tables");
    for (table, columns) in &ours {
        assert_eq!(columns, &theirs[table], "columns of {table}");
    }
    sqlite.remove().await;
    postgres.remove().await;
}
