//! ftdm
