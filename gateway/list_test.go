package gateway

import (
	"fmt"
	"testing"
	"testing/synctest"
)

func TestList(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newMemLog()
		w := newWriter(t, l)
		n, nc := startNode(t, l, NodeConfig{})
		// Twenty events, of two customers with two orders each; 7 never existed.
		for i := range 20 {
			ev := testEvent(i, Keys{Order: fmt.Sprint("o", i%4), Customer: fmt.Sprint("c", i%2)})
			if i%5 == 0 {
				ev.Type, ev.Object = "invoice.paid", ObjectInvoice
			}
			if i != 7 {
				w.events(ev)
			}
		}
		w.join("1", Join{Order: "o0", Customer: "c0", Link: true})
		id := func(n int) string { return testEvent(n, Keys{}).ID }
		created := func(n int) int64 { return int64(testEvent(n, Keys{}).Version.Millis / 1000) }
		types, err := account.Narrow(Filter{Types: []string{"invoice.*"}})
		if err != nil {
			t.Fatal(err)
		}
		tests := map[string]struct {
			q    ListQuery
			want []int
			more bool
		}{
			"newest first":            {ListQuery{Scope: account, Limit: 3}, []int{19, 18, 17}, true},
			"all of it":               {ListQuery{Scope: account, Limit: 100}, []int{19, 18, 17, 16, 15, 14, 13, 12, 11, 10, 9, 8, 6, 5, 4, 3, 2, 1, 0}, false},
			"after one":               {ListQuery{Scope: account, Limit: 3, StartingAfter: id(17)}, []int{16, 15, 14}, true},
			"the last page":           {ListQuery{Scope: account, Limit: 3, StartingAfter: id(3)}, []int{2, 1, 0}, false},
			"after the last":          {ListQuery{Scope: account, Limit: 3, StartingAfter: id(0)}, nil, false},
			"before one":              {ListQuery{Scope: account, Limit: 3, EndingBefore: id(8)}, []int{11, 10, 9}, true},
			"before one, near it all": {ListQuery{Scope: account, Limit: 3, EndingBefore: id(16)}, []int{19, 18, 17}, false},
			"between two":             {ListQuery{Scope: account, Limit: 9, StartingAfter: id(10), EndingBefore: id(6)}, []int{9, 8}, false},
			"after an unknown one":    {ListQuery{Scope: account, Limit: 2, StartingAfter: id(7)}, []int{6, 5}, true},
			"before an unknown one":   {ListQuery{Scope: account, Limit: 2, EndingBefore: id(7)}, []int{9, 8}, true},
			"a customer's":            {ListQuery{Scope: Scope{Customer: "c1"}, Limit: 3}, []int{19, 17, 15}, true},
			"a customer's, after":     {ListQuery{Scope: Scope{Customer: "c1"}, Limit: 3, StartingAfter: id(5)}, []int{3, 1}, false},
			"after another's":         {ListQuery{Scope: Scope{Customer: "c1"}, Limit: 2, StartingAfter: id(6)}, []int{5, 3}, true},
			"an order's":              {ListQuery{Scope: Scope{Orders: []string{"o2"}}, Limit: 10}, []int{18, 14, 10, 6, 2}, false},
			"another's order":         {ListQuery{Scope: Scope{Customer: "c1", Orders: []string{"o2"}}, Limit: 10}, nil, false},
			"nothing":                 {ListQuery{Scope: Scope{}, Limit: 10}, nil, false},
			"of a type":               {ListQuery{Scope: account, Types: []string{"invoice.*"}, Limit: 10}, []int{15, 10, 5, 0}, false},
			"of a filtered type":      {ListQuery{Scope: types, Limit: 2}, []int{15, 10}, true},
			"created since":           {ListQuery{Scope: account, CreatedGTE: created(17), Limit: 10}, []int{19, 18, 17}, false},
			"created until":           {ListQuery{Scope: account, CreatedLTE: created(2), Limit: 10}, []int{2, 1, 0}, false},
		}
		for name, tt := range tests {
			got, err := n.List(t.Context(), tt.q)
			if err != nil {
				t.Errorf("%s: %v", name, err)
			}
			var ids []string
			for _, ev := range got.Events {
				ids = append(ids, ev.ID)
			}
			wantIDs(t, name, ids, tt.want...)
			if got.HasMore != tt.more {
				t.Errorf("%s: has more = %v, want %v", name, got.HasMore, tt.more)
			}
		}
		nc.cut(memFault{refuse: true})
		if _, err := n.List(t.Context(), ListQuery{Scope: account, Limit: 1}); err == nil {
			t.Errorf("List without a log = nil, want an error")
		}
	})
}

// Where a foreign event lies in the log is as little to be learned as where an
// unknown one does.
func TestListPlacesForeignCursorsAsUnknownOnes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newMemLog()
		w := newWriter(t, l)
		n, _ := startNode(t, l, NodeConfig{})
		for _, i := range []int{10, 50, 20, 30} {
			k := Keys{Order: "o", Customer: "c"}
			if i == 50 {
				k = Keys{Order: "p", Customer: "d"}
			}
			w.events(testEvent(i, k))
		}
		for _, cursor := range []int{50, 51} { // another's, nobody's
			got, err := n.List(t.Context(), ListQuery{Scope: Scope{Customer: "c"}, Limit: 10, StartingAfter: testEvent(cursor, Keys{}).ID})
			if err != nil {
				t.Fatal(err)
			}
			var ids []string
			for _, ev := range got.Events {
				ids = append(ids, ev.ID)
			}
			wantIDs(t, fmt.Sprint("after ", cursor), ids, 30, 20, 10)
		}
	})
}

func TestListScansABoundedPart(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newMemLog()
		w := newWriter(t, l)
		n, nc := startNode(t, l, NodeConfig{})
		w.events(someEvents(0, MaxListScan+500)...)
		synctest.Wait()
		got, err := n.List(t.Context(), ListQuery{Scope: account, Types: []string{"rare.*"}, Limit: 10})
		if err != nil || len(got.Events) != 0 {
			t.Errorf("List = %d events, %v, want none", len(got.Events), err)
		}
		if got, want := nc.called("scan"), MaxListScan/scanPage; got != want {
			t.Errorf("%d scans, want %d", got, want)
		}
	})
}

func TestFindTellsForeignAndUnknownAlike(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newMemLog()
		w := newWriter(t, l)
		n, _ := startNode(t, l, NodeConfig{})
		w.events(testEvent(1, Keys{Order: "o"}), testEvent(2, Keys{Order: "p", Customer: "d"}))
		w.join("1", Join{Order: "o", Customer: "c", Link: true})
		mine := Scope{Customer: "c"}
		ev, err := n.Find(t.Context(), testEvent(1, Keys{}).ID, mine)
		if err != nil || ev.ID != testEvent(1, Keys{}).ID {
			t.Errorf("Find of an own event, by what is known now = %v, %v", ev, err)
		}
		for _, id := range []string{testEvent(2, Keys{}).ID, testEvent(3, Keys{}).ID, "join_1", "", "#mark", testEvent(1, Keys{}).ID + " "} {
			if ev, err := n.Find(t.Context(), id, mine); err != ErrNotFound {
				t.Errorf("Find(%q) = %v, %v, want ErrNotFound", id, ev, err)
			}
		}
	})
}

// A client that pages forward gets what is next to its mark, however much came
// since.
func TestListCountsUpFromEndingBefore(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newMemLog()
		w := newWriter(t, l)
		n, _ := startNode(t, l, NodeConfig{})
		const all = 2*MaxListScan + 50
		for i := range all {
			w.events(testEvent(i, Keys{Order: fmt.Sprint(i)}))
		}
		next, pages := 0, 0
		for mark := testEvent(0, Keys{}).ID; ; pages++ {
			page, err := n.List(t.Context(), ListQuery{Scope: account, Limit: 100, EndingBefore: mark})
			if err != nil {
				t.Fatal(err)
			}
			for i := len(page.Events) - 1; i >= 0; i-- {
				if next++; page.Events[i].ID != testEvent(next, Keys{}).ID {
					t.Fatalf("event %d of the pages is %s, want %s", next, page.Events[i].ID, testEvent(next, Keys{}).ID)
				}
				mark = page.Events[i].ID
			}
			if !page.HasMore {
				break
			}
		}
		if next != all-1 {
			t.Errorf("%d pages brought %d events, want %d", pages+1, next, all-1)
		}
	})
}
