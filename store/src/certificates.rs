//! Rows of `acme_certificate`: the certificates of policies, as they were proved.
