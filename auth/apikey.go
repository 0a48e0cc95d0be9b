package auth

import (
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"strings"
)

const maxSecretBytes = 512 // of a presented API key, so that hashing it costs nothing to speak of

// Permissions are what an API key may do, as a bit set.
type Permissions uint8

// The permissions of API keys.
const (
	MayMint   Permissions = 1 << iota // mint tokens for a customer or orders
	MayOps                            // see the whole account: mint tokens for it, read the stats
	MayEvents                         // read events and open streams with the key itself

	AllPermissions = MayMint | MayOps | MayEvents
)

// ParsePermissions returns the set of the named permissions: mint, ops, events.
func ParsePermissions(names []string) (Permissions, error) {
	var p Permissions
	for _, name := range names {
		switch name {
		case "mint":
			p |= MayMint
		case "ops":
			p |= MayOps
		case "events":
			p |= MayEvents
		default:
			return 0, errors.New("auth: a permission is mint, ops or events")
		}
	}
	return p, nil
}

// An APIKey is what the gateway knows of one key of the merchant's servers. The
// key itself is not kept, only its SHA-256: keys are random, not passwords, so
// a slow hash would protect nothing.
type APIKey struct {
	Name             string // for logs and audit lines
	Hash             [32]byte
	Permissions      Permissions
	CustomerRequired bool // it mints only tokens that name a customer
}

// May says whether the key has all the permissions asked for.
func (k APIKey) May(p Permissions) bool { return k.Permissions&p == p }

// APIKeys are the keys of one gateway. They are immutable and safe for
// concurrent use; the zero APIKeys know no key.
type APIKeys struct{ keys []APIKey }

// NewAPIKeys returns keys for Lookup. Every key needs a name and a permission,
// and no two may have the same name or hash.
func NewAPIKeys(keys ...APIKey) (APIKeys, error) {
	names, hashes := make(map[string]bool), make(map[[32]byte]bool)
	for _, k := range keys {
		switch {
		case !validID(k.Name):
			return APIKeys{}, fmt.Errorf("auth: an API key's name is 1 to %d printable bytes", MaxIDBytes)
		case k.Permissions == 0:
			return APIKeys{}, fmt.Errorf("auth: API key %q has no permission", k.Name)
		case names[k.Name]:
			return APIKeys{}, fmt.Errorf("auth: two API keys are named %q", k.Name)
		case hashes[k.Hash]:
			return APIKeys{}, fmt.Errorf("auth: API key %q has the hash of another", k.Name)
		}
		names[k.Name], hashes[k.Hash] = true, true
	}
	return APIKeys{append([]APIKey(nil), keys...)}, nil
}

// Lookup returns the key that secret is. It compares with every key, whichever
// matches, so that its time does not tell how close a guess was.
func (a APIKeys) Lookup(secret string) (APIKey, bool) {
	if secret == "" || len(secret) > maxSecretBytes {
		return APIKey{}, false
	}
	hash := HashKey(secret)
	found := -1
	for i := range a.keys {
		same := subtle.ConstantTimeCompare(hash[:], a.keys[i].Hash[:])
		found = subtle.ConstantTimeSelect(same, i, found)
	}
	if found < 0 {
		return APIKey{}, false
	}
	return a.keys[found], true
}

// HashKey returns the SHA-256 of an API key.
func HashKey(secret string) [32]byte { return sha256.Sum256([]byte(secret)) }

// FormatHash returns the text that ParseHash reads.
func FormatHash(hash [32]byte) string { return "sha256:" + hex.EncodeToString(hash[:]) }

// ParseHash reads a configured hash: "sha256:" and 64 hex digits, or these alone.
func ParseHash(text string) ([32]byte, error) {
	var hash [32]byte
	raw, err := hex.DecodeString(strings.TrimPrefix(text, "sha256:"))
	if err != nil || len(raw) != len(hash) {
		return hash, errors.New(`auth: an API key's hash is "sha256:" and 64 hex digits`)
	}
	if hash = [32]byte(raw); hash == HashKey("") {
		return hash, errors.New("auth: an API key's hash is that of nothing at all: was the variable set that was hashed?")
	}
	return hash, nil
}

// NewKey returns a new API key: gwk_<id>_<32 random bytes in base64url>. The id
// is random too and tells nothing; it lets people name a key they must not show.
func NewKey() string {
	var id [4]byte
	var secret [32]byte
	_, _ = rand.Read(id[:]) // never fails
	_, _ = rand.Read(secret[:])
	return "gwk_" + hex.EncodeToString(id[:]) + "_" + base64.RawURLEncoding.EncodeToString(secret[:])
}
