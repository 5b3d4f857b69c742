-- All times are milliseconds since 1970 in UTC. Ids are UUIDs (version 7). Columns named *_sealed hold AES-256-GCM ciphertext.
-- The same tables, columns and index names exist in ../sqlite/0001_initial.sql; a test compares them.

-- One row that proves that the sealing key is the one this database was made with.
CREATE TABLE seal_sentinel (
    id         BIGINT PRIMARY KEY CHECK (id = 1),
    key_id     TEXT NOT NULL,
    sealed     BYTEA NOT NULL,
    created_at BIGINT NOT NULL
);

-- Our own keys with their certificates: 'identity-ca', 'scep-ra', 'profile-signer', 'server-tls'.
CREATE TABLE sealed_key (
    name        TEXT PRIMARY KEY,
    certificate BYTEA NOT NULL,              -- DER
    chain       BYTEA NOT NULL,              -- PEM of the issuers, possibly empty
    key_sealed  BYTEA NOT NULL,              -- PKCS#8
    not_after   BIGINT NOT NULL,
    created_at  BIGINT NOT NULL
);

-- One MDM relationship on one channel.
CREATE TABLE enrollment (
    id                     UUID PRIMARY KEY,
    kind                   TEXT NOT NULL CHECK (kind IN ('device', 'automated', 'user', 'shared_ipad')),
    channel                TEXT NOT NULL CHECK (channel IN ('device', 'user')),
    parent_id              UUID REFERENCES enrollment (id),
    udid                   TEXT,            -- device channel of device enrollments
    apple_enrollment_id    TEXT,            -- device channel of User Enrollment
    user_id                TEXT,            -- UserID or EnrollmentUserID, user channel
    shared_ipad_user       TEXT,            -- UserShortName, user channel of a Shared iPad
    user_short_name        TEXT,
    user_long_name         TEXT,
    state                  TEXT NOT NULL CHECK (state IN ('authenticated', 'enrolled', 'unenrolled')),
    state_at               BIGINT NOT NULL,
    unenrolled_why         TEXT CHECK (unenrolled_why IN ('check_out', 'replaced', 'removed')),
    unenroll_requested_at  BIGINT,         -- an operator asked for the 403 that makes the device unenroll
    generation             BIGINT NOT NULL DEFAULT 1,
    next_seq               BIGINT NOT NULL DEFAULT 1,
    session                BIGINT NOT NULL DEFAULT 0,   -- counts Idle reports; NotNow is remembered per session
    topic                  TEXT,
    push_token             BYTEA,
    push_magic             TEXT,
    token_at               BIGINT,         -- when the stored TokenUpdate was received
    token_signed_at        BIGINT,         -- its signingTime, where it was signed
    push_dead_at           BIGINT,         -- APNs said Unregistered; cleared by the next TokenUpdate
    awaiting_configuration BOOLEAN NOT NULL DEFAULT FALSE,
    unlock_token_sealed    BYTEA,
    bootstrap_token_sealed BYTEA,
    bootstrap_signed_at    BIGINT,
    serial_number          TEXT,
    product_name           TEXT,
    model                  TEXT,
    model_name             TEXT,
    device_name            TEXT,
    os_version             TEXT,
    build_version          TEXT,
    authenticate_raw       BYTEA,
    token_update_sealed    BYTEA,            -- as received; can carry UnlockToken
    created_at             BIGINT NOT NULL,
    enrolled_at            BIGINT,
    last_seen_at           BIGINT,
    CHECK ((channel = 'device') = (parent_id IS NULL)),
    CHECK (channel = 'user' OR (udid IS NULL) <> (apple_enrollment_id IS NULL)),
    CHECK (channel = 'device' OR (user_id IS NULL) <> (shared_ipad_user IS NULL)),
    CHECK ((state = 'unenrolled') = (unenrolled_why IS NOT NULL))
);
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
    id            UUID PRIMARY KEY,
    enrollment_id UUID NOT NULL REFERENCES enrollment (id),
    generation    BIGINT NOT NULL,
    kind          TEXT NOT NULL CHECK (kind IN ('unlock_token', 'bootstrap_token')),
    sealed        BYTEA NOT NULL,
    archived_at   BIGINT NOT NULL
);
CREATE INDEX escrow_archive_enrollment ON escrow_archive (enrollment_id);

CREATE TABLE enrollment_label (
    enrollment_id UUID NOT NULL REFERENCES enrollment (id),
    label         TEXT NOT NULL,
    PRIMARY KEY (enrollment_id, label)
);
CREATE INDEX enrollment_label_label ON enrollment_label (label, enrollment_id);

-- Our permission to enroll, given to a person as a link.
CREATE TABLE enrollment_link (
    id              UUID PRIMARY KEY,
    code_sha256     BYTEA NOT NULL UNIQUE,
    kind            TEXT NOT NULL CHECK (kind IN ('device', 'user')),
    note            TEXT NOT NULL DEFAULT '',
    expected_serial TEXT,
    expected_udid   TEXT,
    managed_apple_account TEXT,             -- kind 'user': AssignedManagedAppleID
    label           TEXT,                   -- put on each enrollment that comes by this link
    max_uses        BIGINT NOT NULL DEFAULT 1,
    uses            BIGINT NOT NULL DEFAULT 0,
    expires_at      BIGINT NOT NULL,
    revoked_at      BIGINT,
    created_by      TEXT NOT NULL,
    created_at      BIGINT NOT NULL
);

-- For whom, by which flow and until when one identity certificate may be issued, and which one was.
CREATE TABLE issuance (
    id                   UUID PRIMARY KEY,
    flow                 TEXT NOT NULL CHECK (flow IN ('link', 'renewal', 'import')),
    purpose              TEXT NOT NULL CHECK (purpose IN ('enrollment', 'renewal')),
    kind                 TEXT NOT NULL CHECK (kind IN ('device', 'automated', 'user', 'shared_ipad')),
    link_id              UUID REFERENCES enrollment_link (id),
    enrollment_id        UUID REFERENCES enrollment (id),   -- renewal: from the start; enrollment: once used
    expected_serial      TEXT,
    expected_udid        TEXT,
    label                TEXT,
    common_name          TEXT NOT NULL,
    state                TEXT NOT NULL CHECK (state IN ('open', 'issued', 'used', 'void', 'revoked')),
    challenge_sha256     BYTEA UNIQUE,
    challenge_expires_at BIGINT,
    csr_key_sha256       BYTEA,
    transaction_id       TEXT,
    cert_sha256          BYTEA UNIQUE,
    certificate          BYTEA,
    cert_serial          TEXT,
    cert_not_after       BIGINT,
    created_at           BIGINT NOT NULL,
    issued_at            BIGINT,
    used_at              BIGINT,
    revoked_at           BIGINT
);
CREATE INDEX issuance_link ON issuance (link_id);
CREATE INDEX issuance_enrollment ON issuance (enrollment_id);

-- The identity certificates pinned to an enrollment on the device channel.
CREATE TABLE identity (
    cert_sha256   BYTEA PRIMARY KEY,
    enrollment_id UUID NOT NULL REFERENCES enrollment (id),
    issuance_id   UUID REFERENCES issuance (id),
    certificate   BYTEA NOT NULL,
    not_before    BIGINT NOT NULL,
    not_after     BIGINT NOT NULL,
    pinned_at     BIGINT NOT NULL,
    retired_at    BIGINT,                  -- a newer identity took its place
    revoked_at    BIGINT
);
CREATE INDEX identity_enrollment ON identity (enrollment_id);
CREATE INDEX identity_expiry ON identity (not_after) WHERE retired_at IS NULL AND revoked_at IS NULL;

-- A command, its body once for all its targets.
CREATE TABLE command (
    uuid           TEXT PRIMARY KEY,        -- CommandUUID
    request_type   TEXT NOT NULL,
    rendering      TEXT NOT NULL CHECK (rendering IN ('plain', 'acme')),
    body_sealed    BYTEA NOT NULL,           -- plain: the plist as sent; acme: the parameters for rendering at delivery
    body_sha256    BYTEA NOT NULL,
    lane           BIGINT NOT NULL CHECK (lane IN (0, 1)),  -- 0 urgent, 1 normal
    coalescing_key TEXT,
    expires_at     BIGINT,
    created_by     TEXT NOT NULL,
    created_at     BIGINT NOT NULL
);
CREATE INDEX command_created ON command (created_at, uuid);

-- One command on one enrollment, with its state.
CREATE TABLE command_target (
    enrollment_id  UUID NOT NULL REFERENCES enrollment (id),
    seq            BIGINT NOT NULL,        -- order of commit within the enrollment
    command_uuid   TEXT NOT NULL REFERENCES command (uuid),
    lane           BIGINT NOT NULL,
    state          TEXT NOT NULL CHECK (state IN ('queued', 'sent', 'not_now', 'acknowledged', 'error',
                       'command_format_error', 'cancelled', 'expired', 'stalled', 'refused')),
    why            TEXT,                    -- of cancelled and refused
    queued_at      BIGINT NOT NULL,
    first_sent_at  BIGINT,
    sent_at        BIGINT,
    deliveries     BIGINT NOT NULL DEFAULT 0,
    not_now_at     BIGINT,
    not_now_times  BIGINT NOT NULL DEFAULT 0,
    not_now_session BIGINT,
    rendered_sealed BYTEA,                   -- the bytes that were sent, while a redelivery must repeat them
    finished_at    BIGINT,
    error_chain    TEXT,                    -- JSON
    result_sealed  BYTEA,                    -- the final report as received
    extra_reports  BIGINT NOT NULL DEFAULT 0,
    expires_at     BIGINT,
    coalescing_key TEXT,
    PRIMARY KEY (enrollment_id, seq),
    UNIQUE (enrollment_id, command_uuid)
);
CREATE INDEX command_target_outstanding ON command_target (enrollment_id, lane, seq) WHERE state IN ('queued', 'sent', 'not_now');
CREATE INDEX command_target_command ON command_target (command_uuid);
CREATE INDEX command_target_coalescing ON command_target (enrollment_id, coalescing_key) WHERE state = 'queued' AND coalescing_key IS NOT NULL;
CREATE INDEX command_target_expiry ON command_target (expires_at) WHERE state IN ('queued', 'sent', 'not_now') AND expires_at IS NOT NULL;

CREATE TABLE push_cert (
    topic        TEXT PRIMARY KEY,
    certificate  BYTEA NOT NULL,             -- DER
    chain        BYTEA NOT NULL,             -- PEM, possibly empty
    key_sealed   BYTEA NOT NULL,             -- PKCS#8
    not_after    BIGINT NOT NULL,
    uploaded_at  BIGINT NOT NULL,
    stopped_at   BIGINT,                   -- APNs refused the certificate
    stopped_why  TEXT
);

-- "Wake this enrollment": durable, one row per enrollment however many commands wait.
CREATE TABLE push_intent (
    enrollment_id UUID PRIMARY KEY REFERENCES enrollment (id),
    due_at        BIGINT NOT NULL,
    attempt       BIGINT NOT NULL DEFAULT 0,
    failures      BIGINT NOT NULL DEFAULT 0,   -- in a row, on the way to APNs or by its answer
    not_before    BIGINT NOT NULL DEFAULT 0,   -- a new wish to push does not come before this (back-off); far ahead: no live token
    not_now_at    BIGINT,                  -- the last session ended with NotNow then, and the loop has not planned for it yet
    not_now_times BIGINT NOT NULL DEFAULT 0,
    version       BIGINT NOT NULL DEFAULT 1,   -- raised by each new wish to push; an outcome of an older one does not settle it
    leased_until  BIGINT NOT NULL DEFAULT 0,
    lease         UUID,                     -- fencing: who holds it
    last_sent_at  BIGINT,
    last_outcome  TEXT,
    created_at    BIGINT NOT NULL
);
CREATE INDEX push_intent_due ON push_intent (due_at);
CREATE INDEX push_intent_lease ON push_intent (lease) WHERE lease IS NOT NULL;

-- What is believed of an enrollment's device: one JSON document of named facts with source and time.
CREATE TABLE facts (
    enrollment_id UUID PRIMARY KEY REFERENCES enrollment (id),
    body          TEXT NOT NULL,
    updated_at    BIGINT NOT NULL
);

CREATE TABLE acme_policy (
    id         UUID PRIMARY KEY,
    name       TEXT NOT NULL,
    revision   BIGINT NOT NULL,            -- the current one
    created_at BIGINT NOT NULL,
    updated_at BIGINT NOT NULL,
    deleted_at BIGINT
);
CREATE UNIQUE INDEX acme_policy_name ON acme_policy (name) WHERE deleted_at IS NULL;

CREATE TABLE acme_policy_revision (
    policy_id  UUID NOT NULL REFERENCES acme_policy (id),
    revision   BIGINT NOT NULL,
    body       TEXT NOT NULL,               -- JSON, as the API carries it
    payload_uuid UUID NOT NULL,             -- PayloadUUID of the profile of this revision
    created_by TEXT NOT NULL,
    created_at BIGINT NOT NULL,
    PRIMARY KEY (policy_id, revision)
);

-- Who a policy is for.
CREATE TABLE policy_scope (
    policy_id UUID NOT NULL REFERENCES acme_policy (id),
    kind      TEXT NOT NULL CHECK (kind IN ('all', 'label', 'enrollment')),
    value     TEXT NOT NULL,                -- '' for all
    PRIMARY KEY (policy_id, kind, value)
);
CREATE INDEX policy_scope_value ON policy_scope (kind, value);

-- One policy on one enrollment.
CREATE TABLE assignment (
    id            UUID PRIMARY KEY,
    policy_id     UUID NOT NULL REFERENCES acme_policy (id),
    enrollment_id UUID NOT NULL REFERENCES enrollment (id),
    revision      BIGINT NOT NULL,         -- the revision that the state speaks of
    state         TEXT NOT NULL CHECK (state IN ('assigned', 'awaiting_facts', 'blocked', 'installing', 'installed', 'failed', 'removing')),
    reason        TEXT,                     -- reason code of the decision
    decision      TEXT,                     -- JSON: the verdict as explained
    command_uuid  TEXT,
    attempts      BIGINT NOT NULL DEFAULT 0,
    random        TEXT NOT NULL,            -- value of {random} for this assignment
    profile_sent  BOOLEAN NOT NULL DEFAULT FALSE,   -- the profile may be on the device
    due_at        BIGINT,                  -- when the reconcile loop should look; NULL: nothing to do
    leased_until  BIGINT NOT NULL DEFAULT 0,
    lease         UUID,
    created_at    BIGINT NOT NULL,
    updated_at    BIGINT NOT NULL,
    UNIQUE (policy_id, enrollment_id)
);
CREATE INDEX assignment_enrollment ON assignment (enrollment_id);
CREATE INDEX assignment_due ON assignment (due_at) WHERE due_at IS NOT NULL;
CREATE INDEX assignment_command ON assignment (command_uuid) WHERE command_uuid IS NOT NULL;

CREATE TABLE api_token (
    id           UUID PRIMARY KEY,
    name         TEXT NOT NULL,
    sha256       BYTEA NOT NULL UNIQUE,
    scopes       TEXT NOT NULL,             -- separated by spaces
    expires_at   BIGINT NOT NULL,
    last_used_at BIGINT,
    revoked_at   BIGINT,
    created_by   TEXT NOT NULL,
    created_at   BIGINT NOT NULL
);

-- What happened, for people to read.
CREATE TABLE event (
    id            BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    at            BIGINT NOT NULL,
    kind          TEXT NOT NULL,
    enrollment_id UUID,
    command_uuid  TEXT,
    actor         TEXT NOT NULL,
    summary       TEXT NOT NULL,
    data          TEXT NOT NULL             -- JSON, never with a secret
);
CREATE INDEX event_enrollment ON event (enrollment_id, id);
CREATE INDEX event_kind ON event (kind, id);
