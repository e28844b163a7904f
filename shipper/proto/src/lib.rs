//! ftship-proto
