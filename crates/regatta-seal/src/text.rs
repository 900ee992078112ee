//! How a seal is written: base64url (RFC 4648 section 5) without padding, and only in its canonical spelling.
//!
//! One sealed value has one text: bits left over in the last character must be zero, so that nobody gets a second
//! id for the same session.

use base64::alphabet;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};

/// The only way texts are written and read here.
pub(crate) const ENGINE: GeneralPurpose = GeneralPurpose::new(
    &alphabet::URL_SAFE,
    GeneralPurposeConfig::new()
        .with_encode_padding(false)
        .with_decode_padding_mode(DecodePaddingMode::RequireNone)
        .with_decode_allow_trailing_bits(false),
);
