//! The words that a record may hold.

macro_rules! words {
    ($(#[$doc:meta])* $name:ident { $($(#[$variant_doc:meta])* $variant:ident = $text:literal),+ $(,)? }) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        pub enum $name { $($(#[$variant_doc])* $variant),+ }

        impl $name {
            /// The word in the database.
            pub fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $text),+ }
            }

            /// Reads the word that [`Self::as_str`] gives.
            pub fn from_text(text: &str) -> Option<Self> {
                match text { $($text => Some(Self::$variant),)+ _ => None }
            }
        }
    };
}

words! {
    /// How the permission came about. Each flow has its own way to be authorized; none is "no check" (TH-33).
    Flow {
        /// An enrollment link was opened.
        Link = "link",
        /// A device of Automated Device Enrollment asked for its profile.
        Ade = "ade",
        /// A person signed in for account-driven User Enrollment (`mdm-byod`).
        Byod = "byod",
        /// A person signed in for account-driven device enrollment (`mdm-adde`).
        Adde = "adde",
        /// The server renews the identity of an enrollment.
        Renewal = "renewal",
        /// The certificate was issued elsewhere and is known by its SHA-256: nothing is issued here.
        Import = "import",
    }
}

words! {
    /// What the certificate is for; decides what an `Authenticate` with it means (TH-10).
    Purpose {
        /// A new enrollment.
        Enrollment = "enrollment",
        /// A new certificate for an enrollment that goes on.
        Renewal = "renewal",
    }
}

words! {
    /// Who issues the certificate.
    Source {
        /// Our SCEP server, for the record's challenge.
        Scep = "scep",
        /// An ACME server, for the record's `ClientIdentifier`.
        Acme = "acme",
        /// It was issued elsewhere already and is known by its SHA-256.
        Import = "import",
    }
}

words! {
    /// Where the record stands.
    State {
        /// The challenge waits.
        Open = "open",
        /// The certificate was issued (or imported); no `Authenticate` came with it yet.
        Issued = "issued",
        /// An `Authenticate` came with it.
        Used = "used",
        /// Given up before a certificate was issued.
        Void = "void",
        /// The certificate must not be accepted.
        Revoked = "revoked",
    }
}
