package auth

import (
	"encoding/hex"
	"regexp"
	"strings"
	"testing"
)

func TestLookupFindsEachKey(t *testing.T) {
	secrets := []string{NewKey(), NewKey(), NewKey()}
	var list []APIKey
	for i, s := range secrets {
		list = append(list, APIKey{Name: string(rune('a' + i)), Hash: HashKey(s), Permissions: Permissions(1 << i), CustomerRequired: i == 1})
	}
	keys, err := NewAPIKeys(list...)
	if err != nil {
		t.Fatal(err)
	}
	for i, s := range secrets {
		if got, ok := keys.Lookup(s); !ok || got != list[i] {
			t.Errorf("Lookup(key %d) = %v, %v, want %v", i, got, ok, list[i])
		}
	}
	hash := HashKey(secrets[0])
	for name, s := range map[string]string{
		"empty":     "",
		"unknown":   NewKey(),
		"prefix":    secrets[0][:len(secrets[0])-1],
		"longer":    secrets[0] + "x",
		"space":     " " + secrets[0],
		"case":      strings.ToUpper(secrets[0]),
		"its hash":  hex.EncodeToString(hash[:]),
		"raw hash":  string(hash[:]),
		"very long": strings.Repeat("a", 1<<20),
	} {
		if got, ok := keys.Lookup(s); ok || got != (APIKey{}) {
			t.Errorf("Lookup of %s = %v, %v, want none", name, got, ok)
		}
	}
}

func TestLookupFindsNothingInNothing(t *testing.T) {
	if _, ok := (APIKeys{}).Lookup(NewKey()); ok {
		t.Error("Lookup in no keys = true, want false")
	}
	keys, err := NewAPIKeys(APIKey{Name: "empty", Hash: HashKey(""), Permissions: MayMint})
	if err != nil {
		t.Fatal(err)
	}
	if _, ok := keys.Lookup(""); ok {
		t.Error("Lookup of the empty key = true, want false even when somebody configured its hash")
	}
}

func TestAPIKeysAreChecked(t *testing.T) {
	a := APIKey{Name: "a", Hash: HashKey("a"), Permissions: MayMint}
	for name, keys := range map[string][]APIKey{
		"no name":       {{Hash: HashKey("x"), Permissions: MayMint}},
		"no permission": {{Name: "x", Hash: HashKey("x")}},
		"name twice":    {a, {Name: "a", Hash: HashKey("b"), Permissions: MayMint}},
		"hash twice":    {a, {Name: "b", Hash: HashKey("a"), Permissions: MayOps}},
	} {
		if _, err := NewAPIKeys(keys...); err == nil {
			t.Errorf("NewAPIKeys: %s = nil, want an error", name)
		}
	}
}

func TestPermissions(t *testing.T) {
	p, err := ParsePermissions([]string{"mint", "events"})
	if err != nil || p != MayMint|MayEvents {
		t.Fatalf("ParsePermissions = %v, %v, want mint and events", p, err)
	}
	k := APIKey{Permissions: p}
	if !k.May(MayMint) || !k.May(MayMint|MayEvents) || k.May(MayOps) || k.May(MayMint|MayOps) {
		t.Errorf("May of %v does not follow the set", p)
	}
	if _, err := ParsePermissions([]string{"mint", "admin"}); err == nil {
		t.Error(`ParsePermissions("admin") = nil, want an error`)
	}
}

func TestParseHash(t *testing.T) {
	want := HashKey("k")
	bare := hex.EncodeToString(want[:])
	for _, text := range []string{bare, "sha256:" + bare, strings.ToUpper(bare), FormatHash(want)} {
		if got, err := ParseHash(text); err != nil || got != want {
			t.Errorf("ParseHash(%q) = %x, %v, want %x", text, got, err, want)
		}
	}
	for _, text := range []string{"", FormatHash(HashKey("")), "sha256:", bare[:63], bare + "0", bare + "00", "md5:" + bare, "sha256:sha256:" + bare, strings.Repeat("g", 64)} {
		if _, err := ParseHash(text); err == nil {
			t.Errorf("ParseHash(%q) = nil, want an error", text)
		}
	}
}

func TestNewKeyHasItsForm(t *testing.T) {
	form := regexp.MustCompile(`^gwk_[0-9a-f]{8}_[A-Za-z0-9_-]{43}$`)
	a, b := NewKey(), NewKey()
	if !form.MatchString(a) || a == b {
		t.Errorf("NewKey = %q, %q, want two different gwk_<id>_<secret>", a, b)
	}
}
