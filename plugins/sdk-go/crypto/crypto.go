// Package crypto runs functions in the node that are slow in a sandbox. Needs no grant.
package crypto

import (
	"skylark"
	wit "skylark/internal/wit/skylark_plugin_crypto"
)

// PublicKey is a verification key. It determines the algorithm.
type PublicKey = wit.PublicKey

// Ed25519 is a key of 32 bytes; its signatures are 64 bytes.
func Ed25519(key []byte) PublicKey { return wit.MakePublicKeyEd25519(key) }

// RS256 is an RSA key in the form of a JWK: modulus and exponent.
func RS256(n, e []byte) PublicKey { return wit.MakePublicKeyRs256(wit.RsaKey{N: n, E: e}) }

// ES256 is a point of P-256 in the form of a JWK; signatures are r then s, as in a JWS.
func ES256(x, y []byte) PublicKey { return wit.MakePublicKeyEs256(wit.EcKey{X: x, Y: y}) }

// Sha256 returns 32 bytes.
func Sha256(data []byte) []byte { return wit.Sha256(data) }

// HmacSha256 returns 32 bytes.
func HmacSha256(key, data []byte) []byte { return wit.HmacSha256(key, data) }

// HmacSha256Verify is true if the tag is right; compares in constant time.
func HmacSha256Verify(key, data, tag []byte) bool { return wit.HmacSha256Verify(key, data, tag) }

// Verify is true if the key made the signature over the data. An error means that the key is not valid.
func Verify(key PublicKey, data, signature []byte) (bool, error) {
	result := wit.Verify(key, data, signature)
	if result.Tag() != 0 {
		return false, &skylark.Error{Name: "key", Detail: result.Err()}
	}
	return result.Ok(), nil
}

// Random returns cryptographically secure random bytes, at most 1 024 a call.
func Random(length uint32) []byte { return wit.Random(length) }
