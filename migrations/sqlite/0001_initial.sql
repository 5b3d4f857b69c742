-- All times are milliseconds since 1970 in UTC. Ids are UUIDs (version 7). Columns named *_sealed hold AES-256-GCM ciphertext.
-- The same tables, columns and index names exist in ../postgres/0001_initial.sql; a test compares them.

-- One row that proves that the sealing key is the one this database was made with.
CREATE TABLE seal_sentinel (
    id         INTEGER PRIMARY KEY CHECK (id = 1),
    key_id     TEXT NOT NULL,
    sealed     BLOB NOT NULL,
    created_at INTEGER NOT NULL
) STRICT;

-- Our own keys with their certificates: 'identity-ca', 'scep-ra', 'profile-signer', 'server-tls'.
CREATE TABLE sealed_key (
    name        TEXT PRIMARY KEY,
    certificate BLOB NOT NULL,              -- DER
    chain       BLOB NOT NULL,              -- PEM of the issuers, possibly empty
    key_sealed  BLOB NOT NULL,              -- PKCS#8
    not_after   INTEGER NOT NULL,
    created_at  INTEGER NOT NULL
) STRICT;

-- One MDM relationship on one channel.
CREATE TABLE enrollment (
    id                     BLOB PRIMARY KEY,
    kind                   TEXT NOT NULL CHECK (kind IN ('device', 'automated', 'user', 'shared_ipad')),
    channel                TEXT NOT NULL CHECK (channel IN ('device', 'user')),
    parent_id              BLOB REFERENCES enrollment (id),
    udid                   TEXT,            -- device channel of device enrollments
    apple_enrollment_id    TEXT,            -- device channel of User Enrollment
    user_id                TEXT,            -- UserID or EnrollmentUserID, user channel
    shared_ipad_user       TEXT,            -- UserShortName, user channel of a Shared iPad
    user_short_name        TEXT,
    user_long_name         TEXT,
    state                  TEXT NOT NULL CHECK (state IN ('authenticated', 'enrolled', 'unenrolled')),
    state_at               INTEGER NOT NULL,
    unenrolled_why         TEXT CHECK (unenrolled_why IN ('check_out', 'replaced', 'removed')),
    unenroll_requested_at  INTEGER,         -- an operator asked for the 403 that makes the device unenroll
    generation             INTEGER NOT NULL DEFAULT 1,
    next_seq               INTEGER NOT NULL DEFAULT 1,
    session                INTEGER NOT NULL DEFAULT 0,   -- counts Idle reports; NotNow is remembered per session
    topic                  TEXT,
    push_token             BLOB,
    push_magic             TEXT,
    token_at               INTEGER,         -- when the stored TokenUpdate was received
    token_signed_at        INTEGER,         -- its signingTime, where it was signed
    push_dead_at           INTEGER,         -- APNs said Unregistered; cleared by the next TokenUpdate
    awaiting_configuration INTEGER NOT NULL DEFAULT 0,
    unlock_token_sealed    BLOB,
    bootstrap_token_sealed BLOB,
    bootstrap_signed_at    INTEGER,
    serial_number          TEXT,
    product_name           TEXT,
    model                  TEXT,
    model_name             TEXT,
    device_name            TEXT,
    os_version             TEXT,
    build_version          TEXT,
    authenticate_raw       BLOB,
    token_update_sealed    BLOB,            -- as received; can carry UnlockToken
    created_at             INTEGER NOT NULL,
    enrolled_at            INTEGER,
    last_seen_at           INTEGER,
    CHECK ((channel = 'device') = (parent_id IS NULL)),
    CHECK (channel = 'user' OR (udid IS NULL) <> (apple_enrollment_id IS NULL)),
    CHECK (channel = 'device' OR (user_id IS NULL) <> (shared_ipad_user IS NULL)),
    CHECK ((state = 'unenrolled') = (unenrolled_why IS NOT NULL))
) STRICT;
CREATE UNIQUE INDEX enrollment_live_udid ON enrollment (udid) WHERE udid IS NOT NULL AND state <> 'unenrolled';
CREATE UNIQUE INDEX enrollment_live_apple_id ON enrollment (apple_enrollment_id) WHERE apple_enrollment_id IS NOT NULL AND state <> 'unenrolled';
CREATE UNIQUE INDEX enrollment_live_user ON enrollment (parent_id, user_id) WHERE user_id IS NOT NULL AND state <> 'unenrolled';
CREATE UNIQUE INDEX enrollment_live_shared_user ON enrollment (parent_id, shared_ipad_user) WHERE shared_ipad_user IS NOT NULL AND state <> 'unenrolled';
CREATE INDEX enrollment_parent ON enrollment (parent_id);
CREATE INDEX enrollment_serial ON enrollment (serial_number);
CREATE INDEX enrollment_udid ON enrollment (udid);
CREATE INDEX enrollment_apple_id ON enrollment (apple_enrollment_id);

-- What is kept of a former enrollment's secrets when a device enrolls anew.
CREATE TABLE escrow_archive (
    id            BLOB PRIMARY KEY,
    enrollment_id BLOB NOT NULL REFERENCES enrollment (id),
    generation    INTEGER NOT NULL,
    kind          TEXT NOT NULL CHECK (kind IN ('unlock_token', 'bootstrap_token')),
    sealed        BLOB NOT NULL,
    archived_at   INTEGER NOT NULL
) STRICT;
CREATE INDEX escrow_archive_enrollment ON escrow_archive (enrollment_id);

CREATE TABLE enrollment_label (
    enrollment_id BLOB NOT NULL REFERENCES enrollment (id),
    label         TEXT NOT NULL,
    PRIMARY KEY (enrollment_id, label)
) STRICT;
CREATE INDEX enrollment_label_label ON enrollment_label (label, enrollment_id);

-- Our permission to enroll, given to a person as a link.
CREATE TABLE enrollment_link (
    id              BLOB PRIMARY KEY,
    code_sha256     BLOB NOT NULL UNIQUE,
    kind            TEXT NOT NULL CHECK (kind IN ('device', 'user')),
    note            TEXT NOT NULL DEFAULT '',
    expected_serial TEXT,
    expected_udid   TEXT,
    managed_apple_account TEXT,             -- kind 'user': AssignedManagedAppleID
    label           TEXT,                   -- put on each enrollment that comes by this link
    max_uses        INTEGER NOT NULL DEFAULT 1,
    uses            INTEGER NOT NULL DEFAULT 0,
    expires_at      INTEGER NOT NULL,
    revoked_at      INTEGER,
    created_by      TEXT NOT NULL,
    created_at      INTEGER NOT NULL
) STRICT;

-- For whom, by which flow and until when one identity certificate may be issued, and which one was.
CREATE TABLE issuance (
    id                   BLOB PRIMARY KEY,
    flow                 TEXT NOT NULL CHECK (flow IN ('link', 'renewal', 'import')),
    purpose              TEXT NOT NULL CHECK (purpose IN ('enrollment', 'renewal')),
    kind                 TEXT NOT NULL CHECK (kind IN ('device', 'automated', 'user', 'shared_ipad')),
    link_id              BLOB REFERENCES enrollment_link (id),
    enrollment_id        BLOB REFERENCES enrollment (id),   -- renewal: from the start; enrollment: once used
    expected_serial      TEXT,
    expected_udid        TEXT,
    label                TEXT,
    common_name          TEXT NOT NULL,
    state                TEXT NOT NULL CHECK (state IN ('open', 'issued', 'used', 'void', 'revoked')),
    challenge_sha256     BLOB UNIQUE,
    challenge_expires_at INTEGER,
    csr_key_sha256       BLOB,
    transaction_id       TEXT,
    cert_sha256          BLOB UNIQUE,
    certificate          BLOB,
    cert_serial          TEXT,
    cert_not_after       INTEGER,
    created_at           INTEGER NOT NULL,
    issued_at            INTEGER,
    used_at              INTEGER,
    revoked_at           INTEGER
) STRICT;
CREATE INDEX issuance_link ON issuance (link_id);
CREATE INDEX issuance_enrollment ON issuance (enrollment_id);

-- The identity certificates pinned to an enrollment on the device channel.
CREATE TABLE identity (
    cert_sha256   BLOB PRIMARY KEY,
    enrollment_id BLOB NOT NULL REFERENCES enrollment (id),
    issuance_id   BLOB REFERENCES issuance (id),
    certificate   BLOB NOT NULL,
    not_before    INTEGER NOT NULL,
    not_after     INTEGER NOT NULL,
    pinned_at     INTEGER NOT NULL,
    retired_at    INTEGER,                  -- a newer identity took its place
    revoked_at    INTEGER
) STRICT;
CREATE INDEX identity_enrollment ON identity (enrollment_id);
CREATE INDEX identity_expiry ON identity (not_after) WHERE retired_at IS NULL AND revoked_at IS NULL;

-- A command, its body once for all its targets.
CREATE TABLE command (
    uuid           TEXT PRIMARY KEY,        -- CommandUUID
    request_type   TEXT NOT NULL,
    rendering      TEXT NOT NULL CHECK (rendering IN ('plain', 'acme')),
    body_sealed    BLOB NOT NULL,           -- plain: the plist as sent; acme: the parameters for rendering at delivery
    body_sha256    BLOB NOT NULL,
    lane           INTEGER NOT NULL CHECK (lane IN (0, 1)),  -- 0 urgent, 1 normal
    coalescing_key TEXT,
    expires_at     INTEGER,
    created_by     TEXT NOT NULL,
    created_at     INTEGER NOT NULL
) STRICT;
CREATE INDEX command_created ON command (created_at, uuid);

-- One command on one enrollment, with its state.
CREATE TABLE command_target (
    enrollment_id  BLOB NOT NULL REFERENCES enrollment (id),
    seq            INTEGER NOT NULL,        -- order of commit within the enrollment
    command_uuid   TEXT NOT NULL REFERENCES command (uuid),
    lane           INTEGER NOT NULL,
    state          TEXT NOT NULL CHECK (state IN ('queued', 'sent', 'not_now', 'acknowledged', 'error',
                       'command_format_error', 'cancelled', 'expired', 'stalled', 'refused')),
    why            TEXT,                    -- of cancelled and refused
    queued_at      INTEGER NOT NULL,
    first_sent_at  INTEGER,
    sent_at        INTEGER,
    deliveries     INTEGER NOT NULL DEFAULT 0,
    not_now_at     INTEGER,
    not_now_times  INTEGER NOT NULL DEFAULT 0,
    not_now_session INTEGER,
    rendered_sealed BLOB,                   -- the bytes that were sent, while a redelivery must repeat them
    finished_at    INTEGER,
    error_chain    TEXT,                    -- JSON
    result_sealed  BLOB,                    -- the final report as received
    extra_reports  INTEGER NOT NULL DEFAULT 0,
    expires_at     INTEGER,
    coalescing_key TEXT,
    PRIMARY KEY (enrollment_id, seq),
    UNIQUE (enrollment_id, command_uuid)
) STRICT;
CREATE INDEX command_target_outstanding ON command_target (enrollment_id, lane, seq) WHERE state IN ('queued', 'sent', 'not_now');
CREATE INDEX command_target_command ON command_target (command_uuid);
CREATE INDEX command_target_coalescing ON command_target (enrollment_id, coalescing_key) WHERE state = 'queued' AND coalescing_key IS NOT NULL;
CREATE INDEX command_target_expiry ON command_target (expires_at) WHERE state IN ('queued', 'sent', 'not_now') AND expires_at IS NOT NULL;

CREATE TABLE push_cert (
    topic        TEXT PRIMARY KEY,
    certificate  BLOB NOT NULL,             -- DER
    chain        BLOB NOT NULL,             -- PEM, possibly empty
    key_sealed   BLOB NOT NULL,             -- PKCS#8
    not_after    INTEGER NOT NULL,
    uploaded_at  INTEGER NOT NULL,
    stopped_at   INTEGER,                   -- APNs refused the certificate
    stopped_why  TEXT
) STRICT;

-- "Wake this enrollment": durable, one row per enrollment however many commands wait.
CREATE TABLE push_intent (
    enrollment_id BLOB PRIMARY KEY REFERENCES enrollment (id),
    due_at        INTEGER NOT NULL,
    attempt       INTEGER NOT NULL DEFAULT 0,
    failures      INTEGER NOT NULL DEFAULT 0,   -- in a row, on the way to APNs or by its answer
    not_before    INTEGER NOT NULL DEFAULT 0,   -- a new wish to push does not come before this (back-off); far ahead: no live token
    not_now_at    INTEGER,                  -- the last session ended with NotNow then, and the loop has not planned for it yet
    not_now_times INTEGER NOT NULL DEFAULT 0,
    version       INTEGER NOT NULL DEFAULT 1,   -- raised by each new wish to push; an outcome of an older one does not settle it
    leased_until  INTEGER NOT NULL DEFAULT 0,
    lease         BLOB,                     -- fencing: who holds it
    last_sent_at  INTEGER,
    last_outcome  TEXT,
    created_at    INTEGER NOT NULL
) STRICT;
CREATE INDEX push_intent_due ON push_intent (due_at);
CREATE INDEX push_intent_lease ON push_intent (lease) WHERE lease IS NOT NULL;

-- What is believed of an enrollment's device: one JSON document of named facts with source and time.
CREATE TABLE facts (
    enrollment_id BLOB PRIMARY KEY REFERENCES enrollment (id),
    body          TEXT NOT NULL,
    updated_at    INTEGER NOT NULL
) STRICT;

CREATE TABLE acme_policy (
    id         BLOB PRIMARY KEY,
    name       TEXT NOT NULL,
    revision   INTEGER NOT NULL,            -- the current one
    created_at INTEGER NOT NULL,
    updated_at INTEGER NOT NULL,
    deleted_at INTEGER
) STRICT;
CREATE UNIQUE INDEX acme_policy_name ON acme_policy (name) WHERE deleted_at IS NULL;

CREATE TABLE acme_policy_revision (
    policy_id  BLOB NOT NULL REFERENCES acme_policy (id),
    revision   INTEGER NOT NULL,
    body       TEXT NOT NULL,               -- JSON, as the API carries it
    payload_uuid BLOB NOT NULL,             -- PayloadUUID of the profile of this revision
    created_by TEXT NOT NULL,
    created_at INTEGER NOT NULL,
    PRIMARY KEY (policy_id, revision)
) STRICT;

-- Who a policy is for.
CREATE TABLE policy_scope (
    policy_id BLOB NOT NULL REFERENCES acme_policy (id),
    kind      TEXT NOT NULL CHECK (kind IN ('all', 'label', 'enrollment')),
    value     TEXT NOT NULL,                -- '' for all
    PRIMARY KEY (policy_id, kind, value)
) STRICT;
CREATE INDEX policy_scope_value ON policy_scope (kind, value);

-- One policy on one enrollment.
CREATE TABLE assignment (
    id            BLOB PRIMARY KEY,
    policy_id     BLOB NOT NULL REFERENCES acme_policy (id),
    enrollment_id BLOB NOT NULL REFERENCES enrollment (id),
    revision      INTEGER NOT NULL,         -- the revision that the state speaks of
    state         TEXT NOT NULL CHECK (state IN ('assigned', 'awaiting_facts', 'blocked', 'installing', 'installed', 'failed', 'removing')),
    reason        TEXT,                     -- reason code of the decision
    decision      TEXT,                     -- JSON: the verdict as explained
    command_uuid  TEXT,
    attempts      INTEGER NOT NULL DEFAULT 0,
    random        TEXT NOT NULL,            -- value of {random} for this assignment
    profile_sent  INTEGER NOT NULL DEFAULT 0,   -- the profile may be on the device
    due_at        INTEGER,                  -- when the reconcile loop should look; NULL: nothing to do
    leased_until  INTEGER NOT NULL DEFAULT 0,
    lease         BLOB,
    created_at    INTEGER NOT NULL,
    updated_at    INTEGER NOT NULL,
    UNIQUE (policy_id, enrollment_id)
) STRICT;
CREATE INDEX assignment_enrollment ON assignment (enrollment_id);
CREATE INDEX assignment_due ON assignment (due_at) WHERE due_at IS NOT NULL;
CREATE INDEX assignment_command ON assignment (command_uuid) WHERE command_uuid IS NOT NULL;

CREATE TABLE api_token (
    id           BLOB PRIMARY KEY,
    name         TEXT NOT NULL,
    sha256       BLOB NOT NULL UNIQUE,
    scopes       TEXT NOT NULL,             -- separated by spaces
    expires_at   INTEGER NOT NULL,
    last_used_at INTEGER,
    revoked_at   INTEGER,
    created_by   TEXT NOT NULL,
    created_at   INTEGER NOT NULL
) STRICT;

-- What happened, for people to read.
CREATE TABLE event (
    id            INTEGER PRIMARY KEY AUTOINCREMENT,
    at            INTEGER NOT NULL,
    kind          TEXT NOT NULL,
    enrollment_id BLOB,
    command_uuid  TEXT,
    actor         TEXT NOT NULL,
    summary       TEXT NOT NULL,
    data          TEXT NOT NULL             -- JSON, never with a secret
) STRICT;
CREATE INDEX event_enrollment ON event (enrollment_id, id);
CREATE INDEX event_kind ON event (kind, id);
