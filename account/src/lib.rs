//! Account-driven enrollment: service discovery, the bearer token, and the profiles of `mdm-byod` and `mdm-adde`.
