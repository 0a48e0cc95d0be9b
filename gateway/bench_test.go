package gateway

import (
	"fmt"
	"testing"
)

// liveHub returns a node's hub with n live subscribers of one order, or of one
// each, and their queues.
func liveHub(t testing.TB, n int, scope func(i int) Scope) (*Node, []*Subscriber) {
	t.Helper()
	node := NewNode(nil, NodeConfig{})
	node.hub.advance(Position{}, true, Page{Start: Position{1, 0}, Key: testKey})
	subs := make([]*Subscriber, n)
	for i := range subs {
		subs[i] = node.Subscribe(scope(i))
		if !node.hub.attach(subs[i]) {
			t.Fatal("attach = false, want true")
		}
	}
	return node, subs
}

func oneOrder(int) Scope { return Scope{Orders: []string{"o"}} }

func ownOrder(i int) Scope { return Scope{Orders: []string{fmt.Sprint("o", i)}} }

// deliverNext hands out one more event of the order and empties the queues.
func deliverNext(t testing.TB, n *Node, subs []*Subscriber, order string) {
	from := n.Position().Seq
	ev := testEvent(int(from), Keys{Order: order})
	if !n.hub.take(Announcement{Epoch: 1, From: from, Entries: []Entry{{Seq: from + 1, Epoch: 1, Event: &ev}}}) {
		t.Fatal("take = false, want true")
	}
	for _, s := range subs {
		for s.Queued() > 0 {
			s.Next()
		}
	}
}

// What one event costs in allocations does not depend on who receives it.
func TestDeliveryAllocatesNothingPerReceiver(t *testing.T) {
	const receivers = 1000
	allocs := func(n int) float64 {
		node, subs := liveHub(t, n, oneOrder)
		return testing.AllocsPerRun(100, func() { deliverNext(t, node, subs, "o") })
	}
	few, many := allocs(1), allocs(receivers)
	if perReceiver := (many - few) / receivers; perReceiver > 0.01 {
		t.Errorf("%.0f allocations for 1 receiver, %.0f for %d: %.2f each, want 0", few, many, receivers, perReceiver)
	}
}

func BenchmarkHubDelivery(b *testing.B) {
	for _, n := range []int{1, 100, 1000} {
		b.Run(fmt.Sprintf("broadcast/receivers=%d", n), func(b *testing.B) {
			node, subs := liveHub(b, n, oneOrder)
			b.ReportAllocs()
			for b.Loop() {
				deliverNext(b, node, subs, "o")
			}
		})
	}
	for _, n := range []int{1000, 10_000} {
		b.Run(fmt.Sprintf("selective/subscribers=%d", n), func(b *testing.B) {
			node, subs := liveHub(b, n, ownOrder)
			b.ReportAllocs()
			for b.Loop() {
				deliverNext(b, node, subs[7:8], "o7")
			}
		})
	}
}

// Attach and leave, beside many who stay.
func BenchmarkAttach(b *testing.B) {
	node, _ := liveHub(b, 10_000, ownOrder)
	b.ReportAllocs()
	for b.Loop() {
		s := node.Subscribe(Scope{Orders: []string{"another"}})
		if !node.hub.attach(s) {
			b.Fatal("attach = false, want true")
		}
		s.Close()
	}
}
