package gateway

import (
	"fmt"
	"slices"
	"testing"

	"pgregory.net/rapid"
)

func testItem(seq uint64, k Keys, size int) *item {
	return &item{pos: Position{1, seq}, event: &Frame{Event: &Event{Keys: k}}, keys: k, size: size}
}

func seqs(items []*item) []uint64 {
	var out []uint64
	for _, it := range items {
		out = append(out, it.pos.Seq)
	}
	return out
}

func TestRingIsBoundedByItems(t *testing.T) {
	r := newRing()
	const total = 3 * ringItems / 2
	for seq := uint64(1); seq <= total; seq++ {
		r.push(testItem(seq, Keys{Order: fmt.Sprint(seq), Customer: fmt.Sprint(seq)}, 10))
	}
	if got := r.last - r.first + 1; got > ringItems || got < ringItems-1 {
		t.Errorf("%d items held, want %d", got, ringItems)
	}
	if got, want := r.bytes, int(r.last-r.first+1)*10; got != want {
		t.Errorf("%d bytes counted, want %d", got, want)
	}
	if got := len(r.orders) + len(r.customers); got > 2*ringItems {
		t.Errorf("%d chain heads for %d items: dropped items leave theirs behind", got, ringItems)
	}
	if r.holds(r.first-2) || !r.holds(r.first-1) || !r.holds(r.last) || r.holds(r.last+1) {
		t.Errorf("holds is wrong at the edges of %d to %d", r.first, r.last)
	}
	if _, _, ok := r.after(r.first-2, r.generation, &Scope{Account: true}); ok {
		t.Errorf("after what is gone = true, want false")
	}
}

func TestRingIsBoundedByBytes(t *testing.T) {
	r := newRing()
	for seq := uint64(1); seq <= 100; seq++ {
		r.push(testItem(seq, Keys{}, MaxEventBytes))
		if r.bytes > ringBytes {
			t.Fatalf("%d bytes held, want at most %d", r.bytes, ringBytes)
		}
	}
	if got, want := r.last-r.first+1, uint64(ringBytes/MaxEventBytes); got != want {
		t.Errorf("%d items of 1 MiB held, want %d", got, want)
	}
	r.push(testItem(101, Keys{}, ringBytes+1)) // more than all: it stays alone
	if r.first != 101 || r.last != 101 {
		t.Errorf("holds %d to %d, want the last alone", r.first, r.last)
	}
}

func TestRingResetForgetsReaders(t *testing.T) {
	r := newRing()
	for seq := uint64(1); seq <= 10; seq++ {
		r.push(testItem(seq, Keys{Order: "o"}, 1))
	}
	before := r.generation
	r.reset(5)
	r.push(testItem(6, Keys{Order: "o"}, 1))
	if _, _, ok := r.after(5, before, &Scope{Account: true}); ok {
		t.Errorf("a reader from before the reset is served, want not")
	}
	items, last, ok := r.after(5, r.generation, &Scope{Orders: []string{"o"}})
	if got := seqs(items); !ok || last != 6 || !slices.Equal(got, []uint64{6}) {
		t.Errorf("after = %v to %d, %v, want 6 alone", got, last, ok)
	}
}

// What a chain leads to is what a scan would have found.
func TestRingChainsEqualAScan(t *testing.T) {
	few := []string{"", "a", "b", "ab"}
	rapid.Check(t, func(rt *rapid.T) {
		r := newRing()
		first := rapid.Uint64Range(0, 1<<40).Draw(rt, "start")
		r.reset(first)
		all := map[uint64]*item{}
		n := rapid.IntRange(0, 60).Draw(rt, "items")
		for i := range n {
			it := testItem(first+1+uint64(i), Keys{Order: rapid.SampledFrom(few).Draw(rt, "order"), Customer: rapid.SampledFrom(few).Draw(rt, "customer")},
				rapid.SampledFrom([]int{1, ringBytes / 8}).Draw(rt, "size"))
			if rapid.Bool().Draw(rt, "look-up") {
				e := &Entry{Seq: it.pos.Seq, Join: &Join{Order: it.keys.Order, Customer: it.keys.Customer, Covered: true}}
				looked := newItem(1, e, nil, 0)
				looked.size, it = it.size, looked
			}
			r.push(it)
			all[it.pos.Seq] = it
		}
		for _, s := range []Scope{{Orders: []string{"a"}}, {Customer: "ab"}, {Customer: "b", Orders: []string{"a"}}, {Account: true}, {Orders: []string{"a", "b"}}} {
			from := first + rapid.Uint64Range(0, uint64(n)).Draw(rt, "from")
			items, last, ok := r.after(from, r.generation, &s)
			if ok != (from+1 >= r.first) {
				rt.Fatalf("after(%d) of %d to %d = %v", from, r.first, r.last, ok)
			}
			if !ok {
				continue
			}
			var got, want []uint64
			for _, it := range items {
				if len(it.framesFor(&s, nil)) > 0 {
					got = append(got, it.pos.Seq)
				}
			}
			for seq := from + 1; seq <= r.last; seq++ {
				if len(all[seq].framesFor(&s, nil)) > 0 {
					want = append(want, seq)
				}
			}
			if !slices.Equal(got, want) || last != r.last {
				rt.Fatalf("%+v after %d = %v to %d, want %v to %d", s, from, got, last, want, r.last)
			}
		}
	})
}

func TestRingScanIsPaged(t *testing.T) {
	r := newRing()
	for seq := uint64(1); seq <= 2*ringPage+10; seq++ {
		r.push(testItem(seq, Keys{}, 1))
	}
	at, pages := uint64(0), 0
	for at < r.last {
		items, last, ok := r.after(at, r.generation, &Scope{Account: true})
		if !ok || len(items) > ringPage || items[0].pos.Seq != at+1 {
			t.Fatalf("after(%d) = %d items from %d, %v", at, len(items), items[0].pos.Seq, ok)
		}
		at, pages = last, pages+1
	}
	if pages != 3 {
		t.Errorf("%d pages, want 3", pages)
	}
}
