//! ftship
