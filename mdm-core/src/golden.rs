//! Stored property lists that every encoder is held against, byte for byte.

/// Panics unless `written` is what `tests/golden/<name>.plist` holds. `GOLDEN=write` stores it instead.
pub(crate) fn same(name: &str, written: &[u8]) {
    let path = format!("{}/tests/golden/{name}.plist", env!("CARGO_MANIFEST_DIR"));
    if std::env::var_os("GOLDEN").is_some_and(|v| v == "write") {
        std::fs::write(&path, written).expect("the folder of stored lists is there");
        return;
    }
    let stored = std::fs::read(&path).unwrap_or_else(|e| panic!("{path}: {e}"));
    assert_eq!(String::from_utf8_lossy(written), String::from_utf8_lossy(&stored), "{name} is written differently");
}
