-- Every way in: doors, sign-in, account-driven enrollment, Automated Device Enrollment, renewal, quarantine.
-- The same tables, columns and index names exist in ../sqlite/0002_doors.sql; a test compares them.

-- begin: words that a column may hold; each database has its own way to widen a CHECK
ALTER TABLE issuance DROP CONSTRAINT issuance_flow_check;
ALTER TABLE issuance ADD CONSTRAINT issuance_flow_check CHECK (flow IN ('link', 'ade', 'byod', 'adde', 'renewal', 'import'));
ALTER TABLE command DROP CONSTRAINT command_rendering_check;
ALTER TABLE command ADD CONSTRAINT command_rendering_check CHECK (rendering IN ('plain', 'acme', 'enrollment', 'unlock'));
-- end

-- By which door an enrollment came in, and what its enrollment profile says.
ALTER TABLE enrollment ADD COLUMN door TEXT NOT NULL DEFAULT 'link' CHECK (door IN ('link', 'ade', 'byod', 'adde', 'import'));
ALTER TABLE enrollment ADD COLUMN managed_apple_account TEXT;   -- AssignedManagedAppleID
ALTER TABLE enrollment ADD COLUMN server_url TEXT;              -- ServerURL of its profile; can never change
ALTER TABLE enrollment ADD COLUMN anchors TEXT;                 -- JSON: SHA-256 of each anchor in its profile
ALTER TABLE enrollment ADD COLUMN set_up_until BIGINT;          -- AwaitingConfiguration: when the server looks next; DeviceConfigured goes out then at the latest
ALTER TABLE enrollment ADD COLUMN set_up_done_at BIGINT;        -- DeviceConfigured was queued for the first time
CREATE INDEX enrollment_set_up ON enrollment (set_up_until) WHERE set_up_until IS NOT NULL;

-- How an issuance record is fulfilled: by our SCEP, by an ACME server, or elsewhere (imported).
ALTER TABLE issuance ADD COLUMN source TEXT NOT NULL DEFAULT 'scep' CHECK (source IN ('scep', 'acme', 'import'));
ALTER TABLE issuance ADD COLUMN client_identifier_sha256 BYTEA; -- ACME: ClientIdentifier, by which the certificate is found
ALTER TABLE issuance ADD COLUMN identity_reason TEXT;           -- JSON: why this identity, as the gate said
ALTER TABLE issuance ADD COLUMN account_token_id UUID;          -- the bearer token that the profile was fetched with
ALTER TABLE issuance ADD COLUMN managed_apple_account TEXT;
ALTER TABLE issuance ADD COLUMN anchors TEXT;                   -- JSON: SHA-256 of each anchor in the profile
UPDATE issuance SET source = 'import' WHERE flow = 'import';
CREATE INDEX issuance_client_identifier ON issuance (client_identifier_sha256) WHERE client_identifier_sha256 IS NOT NULL;
CREATE INDEX issuance_serial ON issuance (expected_serial) WHERE state = 'open';

-- A link may ask for a web sign-in before it gives its profile.
ALTER TABLE enrollment_link ADD COLUMN sign_in BOOLEAN NOT NULL DEFAULT FALSE;

-- The settings of a door; a door without a row has the defaults.
CREATE TABLE door (
    name       TEXT PRIMARY KEY CHECK (name IN ('link', 'ade', 'byod', 'adde')),
    body       TEXT NOT NULL,               -- JSON, as the API carries it
    revision   BIGINT NOT NULL,
    updated_by TEXT NOT NULL,
    updated_at BIGINT NOT NULL
);

-- A code that stands in for a sign-in where there is no OpenID Connect provider.
CREATE TABLE invitation (
    id                    UUID PRIMARY KEY,
    code_sha256           BYTEA NOT NULL UNIQUE,
    managed_apple_account TEXT NOT NULL,
    mode                  TEXT NOT NULL CHECK (mode IN ('byod', 'adde')),
    note                  TEXT NOT NULL DEFAULT '',
    label                 TEXT,
    max_uses              BIGINT NOT NULL DEFAULT 1,
    uses                  BIGINT NOT NULL DEFAULT 0,
    expires_at            BIGINT NOT NULL,
    revoked_at            BIGINT,
    created_by            TEXT NOT NULL,
    created_at            BIGINT NOT NULL
);

-- One person's web sign-in, from its first page to its end.
CREATE TABLE sign_in (
    id              UUID PRIMARY KEY,
    purpose         TEXT NOT NULL CHECK (purpose IN ('link', 'ade', 'byod', 'adde')),
    subject_of      TEXT NOT NULL,          -- JSON: what it is for (link, serial number, OAuth 2 request), never a secret
    state_sha256    BYTEA NOT NULL UNIQUE,  -- of the OAuth 2 state
    browser_sha256  BYTEA NOT NULL,         -- of the session cookie that the state is bound to
    secrets_sealed  BYTEA NOT NULL,         -- nonce and PKCE verifier
    attempts        BIGINT NOT NULL DEFAULT 0,
    expires_at      BIGINT NOT NULL,
    signed_in_at    BIGINT,
    person          TEXT,                   -- the e-mail address or Managed Apple Account that signed in
    label           TEXT,
    invitation_id   UUID REFERENCES invitation (id),
    finished_at     BIGINT,                 -- what it was for was given out; it is good for nothing more
    created_at      BIGINT NOT NULL
);
CREATE INDEX sign_in_expiry ON sign_in (expires_at);

-- What a device of an account-driven enrollment shows with every request. Only hashes.
CREATE TABLE account_token (
    id                    UUID PRIMARY KEY,
    sha256                BYTEA NOT NULL UNIQUE,
    refresh_sha256        BYTEA UNIQUE,
    code_sha256           BYTEA UNIQUE,     -- apple-oauth2: the authorization code that it is exchanged for
    code_expires_at       BIGINT,
    code_challenge        TEXT,             -- PKCE, where the device sent one
    redirect_uri          TEXT,
    method                TEXT NOT NULL CHECK (method IN ('apple-as-web', 'apple-oauth2')),
    mode                  TEXT NOT NULL CHECK (mode IN ('byod', 'adde')),
    managed_apple_account TEXT NOT NULL,
    label                 TEXT,
    sign_in_id            UUID REFERENCES sign_in (id),
    enrollment_id         UUID REFERENCES enrollment (id),
    state                 TEXT NOT NULL CHECK (state IN ('code', 'live', 'replaced', 'revoked')),
    expires_at            BIGINT,           -- of the access token; refreshed by apple-oauth2
    revoked_at            BIGINT,
    last_used_at          BIGINT,
    created_at            BIGINT NOT NULL
);
CREATE INDEX account_token_enrollment ON account_token (enrollment_id);
CREATE INDEX account_token_sign_in ON account_token (sign_in_id);

-- One server of Apple Business Manager or Apple School Manager.
CREATE TABLE ade_server (
    id                 UUID PRIMARY KEY,
    name               TEXT NOT NULL,
    certificate        BYTEA NOT NULL,      -- DER, uploaded to the portal
    key_sealed         BYTEA,               -- PKCS#8; forgotten when the server is taken out of use
    consumer_key       TEXT,
    token_sealed       BYTEA,               -- the server token as JSON
    token_expires_at   BIGINT,
    token_at           BIGINT,
    account            TEXT,                -- JSON: Apple's answer to /account
    default_profile_id UUID,
    cursor             TEXT,
    phase              TEXT NOT NULL DEFAULT 'fetch' CHECK (phase IN ('fetch', 'sync')),
    list_began_at      BIGINT,              -- when the full list was begun that is being read, or was read last
    synced_at          BIGINT,
    health             TEXT NOT NULL DEFAULT 'no_token'
        CHECK (health IN ('no_token', 'ok', 'terms_not_signed', 'token_expired', 'token_refused', 'unreachable', 'throttled')),
    health_text        TEXT,
    health_at          BIGINT,
    failures           BIGINT NOT NULL DEFAULT 0,
    due_at             BIGINT NOT NULL,
    leased_until       BIGINT NOT NULL DEFAULT 0,
    lease              UUID,
    created_at         BIGINT NOT NULL,
    deleted_at         BIGINT
);
CREATE UNIQUE INDEX ade_server_name ON ade_server (name) WHERE deleted_at IS NULL;
CREATE UNIQUE INDEX ade_server_consumer_key ON ade_server (consumer_key) WHERE deleted_at IS NULL;

-- A profile definition as an operator writes it.
CREATE TABLE ade_profile (
    id         UUID PRIMARY KEY,
    name       TEXT NOT NULL,
    revision   BIGINT NOT NULL,
    body       TEXT NOT NULL,               -- JSON, Apple's keys without url, anchor_certs and devices
    created_by TEXT NOT NULL,
    created_at BIGINT NOT NULL,
    updated_at BIGINT NOT NULL,
    deleted_at BIGINT
);
CREATE UNIQUE INDEX ade_profile_name ON ade_profile (name) WHERE deleted_at IS NULL;

-- The same at Apple: what is defined there can't be changed, so each change is defined anew.
CREATE TABLE ade_definition (
    server_id    UUID NOT NULL REFERENCES ade_server (id),
    profile_id   UUID NOT NULL REFERENCES ade_profile (id),
    sha256       BYTEA NOT NULL,            -- of what was sent
    anchors      TEXT NOT NULL,             -- JSON: SHA-256 of each certificate in anchor_certs
    profile_uuid TEXT NOT NULL,             -- Apple's
    defined_at   BIGINT NOT NULL,
    PRIMARY KEY (server_id, profile_id, sha256)
);

-- A device that Apple says belongs to a server.
CREATE TABLE ade_device (
    server_id          UUID NOT NULL REFERENCES ade_server (id),
    serial_number      TEXT NOT NULL,
    model              TEXT,
    description        TEXT,
    color              TEXT,
    asset_tag          TEXT,
    os                 TEXT,
    device_family      TEXT,
    profile_status     TEXT,                -- Apple's word
    profile_uuid       TEXT,                -- Apple's word
    device_assigned_by TEXT,
    device_assigned_at BIGINT,
    op_date            BIGINT,              -- of the newest op that was taken in
    deleted_at         BIGINT,              -- Apple says that it left this server
    listed_at          BIGINT NOT NULL,    -- when Apple last listed it, in full or by an operation
    unlisted_at        BIGINT,              -- a full list did not have it: it counts for nothing until Apple lists it again
    profile_id         UUID REFERENCES ade_profile (id),    -- the wish of an operator; NULL: the server's default
    assign_state       TEXT NOT NULL DEFAULT 'none' CHECK (assign_state IN ('none', 'due', 'assigned', 'throttled', 'not_accessible', 'failed')),
    assigned_uuid      TEXT,                -- the profile_uuid that was assigned
    assigned_at        BIGINT,
    assign_attempts    BIGINT NOT NULL DEFAULT 0,
    assign_due_at      BIGINT,              -- when the reconcile loop looks; NULL: nothing to do
    label              TEXT,                -- put on the enrollment that comes of it
    approved_at        BIGINT,              -- an operator vouches for this serial number (TH-50)
    first_seen_at      BIGINT NOT NULL,
    updated_at         BIGINT NOT NULL,
    PRIMARY KEY (server_id, serial_number)
);
CREATE INDEX ade_device_serial ON ade_device (serial_number);
CREATE INDEX ade_device_due ON ade_device (server_id, assign_due_at) WHERE assign_due_at IS NOT NULL;

-- The renewal of one enrollment's identity.
CREATE TABLE renewal (
    enrollment_id UUID PRIMARY KEY REFERENCES enrollment (id),
    state         TEXT NOT NULL CHECK (state IN ('due', 'queued', 'issued', 'done')),
    reason        TEXT NOT NULL CHECK (reason IN ('expiry', 'expired', 'to_acme', 'anchors', 'operator')),
    cert_sha256   BYTEA NOT NULL,           -- the identity that is to be renewed
    deadline      BIGINT NOT NULL,          -- its end
    command_uuid  TEXT,
    issuance_id   UUID REFERENCES issuance (id),
    attempts      BIGINT NOT NULL DEFAULT 0,
    last_error    TEXT,
    due_at        BIGINT,                   -- when the loop looks; NULL: nothing to do
    leased_until  BIGINT NOT NULL DEFAULT 0,
    lease         UUID,
    created_at    BIGINT NOT NULL,
    updated_at    BIGINT NOT NULL
);
CREATE INDEX renewal_due ON renewal (due_at) WHERE due_at IS NOT NULL;
CREATE INDEX renewal_command ON renewal (command_uuid) WHERE command_uuid IS NOT NULL;

-- An Authenticate that does not fit and that an operator decides on.
CREATE TABLE quarantine (
    id            UUID PRIMARY KEY,
    cert_sha256   BYTEA NOT NULL UNIQUE,
    certificate   BYTEA NOT NULL,           -- DER
    udid          TEXT,
    apple_enrollment_id TEXT,
    serial_number TEXT,
    product_name  TEXT,
    os_version    TEXT,
    reason        TEXT NOT NULL,            -- the refusal's stable word
    enrollment_id UUID REFERENCES enrollment (id),  -- the enrollment that it claims
    issuance_id   UUID REFERENCES issuance (id),
    state         TEXT NOT NULL CHECK (state IN ('waiting', 'approved', 'refused', 'used')),
    first_at      BIGINT NOT NULL,
    last_at       BIGINT NOT NULL,
    times         BIGINT NOT NULL DEFAULT 1,
    decided_by    TEXT,
    decided_at    BIGINT,
    approved_until BIGINT
);
CREATE INDEX quarantine_state ON quarantine (state, last_at);
CREATE INDEX quarantine_udid ON quarantine (udid) WHERE udid IS NOT NULL;

-- Network users of Macs whom UserAuthenticate may ask for a digest.
CREATE TABLE network_user (
    short_name   TEXT PRIMARY KEY,
    digest_sealed BYTEA NOT NULL,           -- HA1 of RFC 2617
    created_by   TEXT NOT NULL,
    created_at   BIGINT NOT NULL
);

-- The digest challenge that a Mac was given for a user, and the AuthToken that its answer earned.
CREATE TABLE user_challenge (
    enrollment_id UUID NOT NULL REFERENCES enrollment (id),
    user_id       TEXT NOT NULL,
    nonce_sha256  BYTEA,
    nonce_expires_at BIGINT,
    token_sha256  BYTEA,
    created_at    BIGINT NOT NULL,
    PRIMARY KEY (enrollment_id, user_id)
);
