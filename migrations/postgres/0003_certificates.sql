-- ACME policies to the end: certificate authorities, the ledger of ClientIdentifiers, proof, attestation, label rules, rollouts.
-- The same tables, columns and index names exist in ../sqlite/0003_certificates.sql; a test compares them.

-- begin: words that a column may hold; each database has its own way to widen a CHECK
ALTER TABLE command DROP CONSTRAINT command_rendering_check;
ALTER TABLE command ADD CONSTRAINT command_rendering_check CHECK (rendering IN ('plain', 'acme', 'enrollment', 'unlock', 'facts'));
ALTER TABLE assignment DROP CONSTRAINT assignment_state_check;
ALTER TABLE assignment ADD CONSTRAINT assignment_state_check CHECK (state IN ('assigned', 'held', 'awaiting_facts', 'blocked', 'installing', 'installed', 'verified', 'failed', 'removing'));
-- end

ALTER TABLE assignment ADD COLUMN ring BIGINT NOT NULL DEFAULT 0;      -- the step of a rollout that admits it, from 0
ALTER TABLE assignment ADD COLUMN silicon TEXT;                          -- Apple's row for its chip, as decided last: for reports
ALTER TABLE assignment ADD COLUMN attempt_id UUID;                       -- the attempt that is under way or was the last: the trace id
ALTER TABLE assignment ADD COLUMN certificate_sha256 BYTEA;               -- the certificate that was proved last
ALTER TABLE assignment ADD COLUMN not_after BIGINT;                     -- its end
ALTER TABLE assignment ADD COLUMN renew_at BIGINT;                      -- when it is renewed
ALTER TABLE assignment ADD COLUMN proof_tries BIGINT NOT NULL DEFAULT 0; -- CertificateList asked since the last Acknowledged
ALTER TABLE assignment ADD COLUMN certificate_revision BIGINT;             -- the revision that the proved certificate is of
ALTER TABLE assignment ADD COLUMN certificate_form TEXT;                -- JSON: the form that it was asked for in
CREATE INDEX assignment_policy_state ON assignment (policy_id, state);
CREATE INDEX assignment_renew ON assignment (renew_at) WHERE renew_at IS NOT NULL;

-- A policy whose scope is to be turned into assignments again.
ALTER TABLE acme_policy ADD COLUMN rescope_at BIGINT;
ALTER TABLE acme_policy ADD COLUMN rescope_after UUID;      -- the enrollment that was looked at last
CREATE INDEX acme_policy_rescope ON acme_policy (rescope_at) WHERE rescope_at IS NOT NULL;

-- A line of a scope takes in or leaves out.
ALTER TABLE policy_scope ADD COLUMN effect TEXT NOT NULL DEFAULT 'include' CHECK (effect IN ('include', 'exclude'));

-- A label that follows from what is known of a device. Such a label is never put on by hand.
CREATE TABLE label_rule (
    label      TEXT PRIMARY KEY,
    body       TEXT NOT NULL,               -- JSON, as the API carries it
    revision   BIGINT NOT NULL,
    apply_at   BIGINT,                     -- the rule changed: everybody is looked at again from here on
    apply_after UUID,                       -- the enrollment that was looked at last
    updated_by TEXT NOT NULL,
    updated_at BIGINT NOT NULL
);

-- A certificate authority that policies name.
CREATE TABLE certificate_authority (
    id         UUID PRIMARY KEY,
    name       TEXT NOT NULL,
    revision   BIGINT NOT NULL,
    body       TEXT NOT NULL,               -- JSON, as the API carries it
    created_at BIGINT NOT NULL,
    updated_at BIGINT NOT NULL,
    deleted_at BIGINT
);
CREATE UNIQUE INDEX certificate_authority_name ON certificate_authority (name) WHERE deleted_at IS NULL;

-- A webhook that a certificate authority calls, and the secret that its calls are signed with.
CREATE TABLE ca_webhook (
    id            UUID PRIMARY KEY,
    authority_id  UUID NOT NULL REFERENCES certificate_authority (id),
    webhook_id    TEXT NOT NULL UNIQUE,     -- X-Smallstep-Webhook-ID, or the generic one's
    kind          TEXT NOT NULL CHECK (kind IN ('enriching', 'authorizing', 'generic')),
    secret_sealed BYTEA NOT NULL,
    last_used_at  BIGINT,
    revoked_at    BIGINT,
    created_by    TEXT NOT NULL,
    created_at    BIGINT NOT NULL
);
CREATE INDEX ca_webhook_authority ON ca_webhook (authority_id);

-- A call that was answered: the same one again gets the same answer and does nothing.
CREATE TABLE ca_webhook_call (
    webhook_id  UUID NOT NULL REFERENCES ca_webhook (id),
    body_sha256 BYTEA NOT NULL,
    attempt_id  UUID,                      -- of a yes: the attempt whose permission it used
    answer      TEXT NOT NULL,              -- JSON, as it was given
    at          BIGINT NOT NULL,
    PRIMARY KEY (webhook_id, body_sha256)
);
CREATE INDEX ca_webhook_call_at ON ca_webhook_call (at);
CREATE UNIQUE INDEX ca_webhook_call_attempt ON ca_webhook_call (webhook_id, attempt_id) WHERE attempt_id IS NOT NULL;

-- The ledger: one try to get one certificate onto one enrollment. Its id is the trace id.
CREATE TABLE attempt (
    id                       UUID PRIMARY KEY,
    assignment_id            UUID NOT NULL,
    policy_id                UUID NOT NULL REFERENCES acme_policy (id),
    revision                 BIGINT NOT NULL,
    enrollment_id            UUID NOT NULL REFERENCES enrollment (id),
    authority_id             UUID REFERENCES certificate_authority (id),
    purpose                  TEXT NOT NULL CHECK (purpose IN ('install', 'renewal')),
    state                    TEXT NOT NULL CHECK (state IN ('queued', 'delivered', 'acknowledged', 'proved', 'failed', 'void')),
    command_uuid             TEXT,
    mode                     TEXT CHECK (mode IN ('one_time', 'device')),   -- what ClientIdentifier is; NULL before delivery
    client_identifier_sha256 BYTEA,
    client_identifier        TEXT,          -- where it names the device and is no secret
    expectation              TEXT,          -- JSON: what the certificate must show, and of which device
    expires_at               BIGINT,       -- the permission ends: 24 hours after delivery
    queued_at                BIGINT NOT NULL,
    pushed_at                BIGINT,               -- the push that brought the device, as known at the delivery
    delivered_at             BIGINT,
    acknowledged_at          BIGINT,
    authorized_at            BIGINT,       -- the authority's webhook was told yes: the permission is used up
    authorized_key_sha256    BYTEA,          -- SHA-256 of the SubjectPublicKeyInfo that was allowed
    issued_at                BIGINT,       -- the authority said that it issued
    certificate_sha256       BYTEA,
    proved_at                BIGINT,
    ended_at                 BIGINT,
    why                      TEXT           -- of failed and void
);
CREATE INDEX attempt_enrollment ON attempt (enrollment_id, queued_at);
CREATE INDEX attempt_assignment ON attempt (assignment_id);
CREATE INDEX attempt_client_identifier ON attempt (client_identifier_sha256) WHERE client_identifier_sha256 IS NOT NULL;
CREATE INDEX attempt_key ON attempt (authorized_key_sha256) WHERE authorized_key_sha256 IS NOT NULL;
CREATE INDEX attempt_ended ON attempt (ended_at) WHERE ended_at IS NOT NULL;

-- A certificate of a policy that was seen on a device, or that its authority reported.
CREATE TABLE acme_certificate (
    sha256         BYTEA PRIMARY KEY,
    enrollment_id  UUID NOT NULL REFERENCES enrollment (id),
    policy_id      UUID NOT NULL REFERENCES acme_policy (id),
    attempt_id     UUID NOT NULL REFERENCES attempt (id),
    certificate    BYTEA NOT NULL,           -- DER
    serial_number  TEXT NOT NULL,
    issuer         TEXT NOT NULL,
    subject        TEXT NOT NULL,
    key_type       TEXT NOT NULL,
    key_sha256     BYTEA NOT NULL,
    hardware_bound BOOLEAN NOT NULL,        -- as asked for
    attested       BOOLEAN NOT NULL,        -- as asked for
    not_before     BIGINT NOT NULL,
    not_after      BIGINT NOT NULL,
    state          TEXT NOT NULL CHECK (state IN ('reported', 'verified', 'replaced', 'gone')),
    reported_at    BIGINT,                 -- by the authority
    verified_at    BIGINT,                 -- in a CertificateList of the device
    seen_at        BIGINT,                 -- there last
    replaced_at    BIGINT,                 -- a newer one of the same policy was proved
    alarm          TEXT CHECK (alarm IN ('ends_soon', 'ended'))   -- what was said of it last, so that it is said once
);
CREATE INDEX acme_certificate_enrollment ON acme_certificate (enrollment_id);
CREATE INDEX acme_certificate_policy ON acme_certificate (policy_id, state);
CREATE INDEX acme_certificate_end ON acme_certificate ((not_after - (not_after - not_before) / 15)) WHERE state = 'verified';
CREATE INDEX acme_certificate_key ON acme_certificate (key_sha256);
CREATE INDEX acme_certificate_attempt ON acme_certificate (attempt_id);
CREATE INDEX acme_certificate_not_after ON acme_certificate (not_after, sha256);

-- A nonce that a device was sent in DeviceInformation.
CREATE TABLE attestation_nonce (
    nonce         BYTEA PRIMARY KEY,
    enrollment_id UUID NOT NULL REFERENCES enrollment (id),
    command_uuid  TEXT NOT NULL,
    sent_at       BIGINT NOT NULL
);
CREATE INDEX attestation_nonce_enrollment ON attestation_nonce (enrollment_id, sent_at);
CREATE INDEX attestation_nonce_sent ON attestation_nonce (sent_at);

-- What Apple said of a device, as it was judged. The chain itself is kept for a time only (TH-49).
CREATE TABLE attestation (
    id            UUID PRIMARY KEY,
    enrollment_id UUID NOT NULL REFERENCES enrollment (id),
    source        TEXT NOT NULL CHECK (source IN ('device_information', 'acme')),
    verdict       TEXT NOT NULL,            -- accepted, absent, or the stable word of the refusal
    identity      TEXT NOT NULL CHECK (identity IN ('matches', 'not_attested', 'mismatch', 'unknown')),
    fresh_as_of   BIGINT,                  -- when the nonce that it carries was sent; NULL: unknown
    body          TEXT NOT NULL,            -- JSON: the attested values, without serial number and UDID
    chain_sha256  BYTEA NOT NULL,
    chain         BYTEA,                     -- the certificates, DER, one after the other
    received_at   BIGINT NOT NULL
);
CREATE INDEX attestation_enrollment ON attestation (enrollment_id, received_at);
CREATE INDEX attestation_chain ON attestation (received_at) WHERE chain IS NOT NULL;
CREATE INDEX attestation_received ON attestation (received_at);

-- The staged delivery of one revision of a policy.
CREATE TABLE rollout (
    policy_id     UUID NOT NULL REFERENCES acme_policy (id),
    revision      BIGINT NOT NULL,
    from_revision BIGINT,                  -- what those have who are not admitted yet, and what a rollback goes back to
    plan          TEXT NOT NULL,            -- JSON: the steps, their waits, the failure budget
    step          BIGINT NOT NULL,         -- the step that is under way, from 0: it and those before it are admitted
    state         TEXT NOT NULL CHECK (state IN ('running', 'paused', 'done', 'rolled_back', 'superseded')),
    why           TEXT,                     -- of paused and rolled_back
    forgiven      BIGINT NOT NULL DEFAULT 0,   -- failures that an operator has looked at and resumed after
    step_at       BIGINT NOT NULL,         -- when the step began
    due_at        BIGINT,
    leased_until  BIGINT NOT NULL DEFAULT 0,
    lease         UUID,
    created_by    TEXT NOT NULL,
    created_at    BIGINT NOT NULL,
    updated_at    BIGINT NOT NULL,
    PRIMARY KEY (policy_id, revision)
);
CREATE INDEX rollout_due ON rollout (due_at) WHERE due_at IS NOT NULL;
