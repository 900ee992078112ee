//! Is this signature by this key? One arm for each algorithm, all in the cryptography library.
//!
//! The key's kind was matched with the algorithm before (`VerificationKey::checks`); here a pair that does not fit is
//! no signature. There is no symmetric algorithm, so a public key can never be taken for a shared secret.

use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_FIXED, ECDSA_P384_SHA384_FIXED, ED25519, RSA_PKCS1_2048_8192_SHA256,
    RSA_PKCS1_2048_8192_SHA384, RSA_PKCS1_2048_8192_SHA512, RSA_PSS_2048_8192_SHA256,
    RSA_PSS_2048_8192_SHA384, RSA_PSS_2048_8192_SHA512, RsaParameters, RsaPublicKeyComponents,
    UnparsedPublicKey, VerificationAlgorithm,
};
use regatta_policy::access::{Algorithm, Material, VerificationKey};

/// Whether `signature` over `signed` was made with the private half of `key`.
pub(super) fn is_by(key: &VerificationKey, algorithm: Algorithm, signed: &[u8], signature: &[u8]) -> bool {
    let plain = |with: &'static dyn VerificationAlgorithm, key: &[u8]| {
        UnparsedPublicKey::new(with, key).verify(signed, signature).is_ok()
    };
    match (&key.material, algorithm) {
        (Material::P256(point), Algorithm::Es256) => plain(&ECDSA_P256_SHA256_FIXED, point),
        (Material::P384(point), Algorithm::Es384) => plain(&ECDSA_P384_SHA384_FIXED, point),
        (Material::Ed25519(key), Algorithm::EdDsa) => plain(&ED25519, key),
        (Material::Rsa { n, e }, algorithm) => rsa(algorithm).is_some_and(|with| {
            RsaPublicKeyComponents { n: n.as_slice(), e: e.as_slice() }
                .verify(with, signed, signature)
                .is_ok()
        }),
        (Material::P256(_) | Material::P384(_) | Material::Ed25519(_), _) => false,
    }
}

fn rsa(algorithm: Algorithm) -> Option<&'static RsaParameters> {
    match algorithm {
        Algorithm::Rs256 => Some(&RSA_PKCS1_2048_8192_SHA256),
        Algorithm::Rs384 => Some(&RSA_PKCS1_2048_8192_SHA384),
        Algorithm::Rs512 => Some(&RSA_PKCS1_2048_8192_SHA512),
        Algorithm::Ps256 => Some(&RSA_PSS_2048_8192_SHA256),
        Algorithm::Ps384 => Some(&RSA_PSS_2048_8192_SHA384),
        Algorithm::Ps512 => Some(&RSA_PSS_2048_8192_SHA512),
        Algorithm::Es256 | Algorithm::Es384 | Algorithm::EdDsa => None,
    }
}
