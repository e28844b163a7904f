//! ftdm-lab
