package auth

import "testing"

func BenchmarkVerify(b *testing.B) {
	ring := newKeyring(b)
	token, err := ring.Mint(scopedClaims())
	if err != nil {
		b.Fatal(err)
	}
	b.ReportAllocs()
	for b.Loop() {
		if _, err := ring.Verify(token, now); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkMint(b *testing.B) {
	ring := newKeyring(b)
	b.ReportAllocs()
	for b.Loop() {
		if _, err := ring.Mint(scopedClaims()); err != nil {
			b.Fatal(err)
		}
	}
}
