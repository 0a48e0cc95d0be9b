package redisbus

import (
	"context"
	"fmt"
	"sort"
	"strconv"
	"strings"

	"github.com/redis/go-redis/v9"

	"pepay-gateway/gateway"
)

// Read implements gateway.Log.
func (b *Bus) Read(ctx context.Context, from gateway.ReadFrom, count int) (gateway.Page, error) {
	mode, order, customer := "p", "", ""
	switch {
	case from.Tip:
		mode, count = "t", 0
	case from.ID != "":
		mode = "i"
		if orders := from.Scope.SelectedOrders(); len(orders) == 1 {
			order = orders[0]
			if c := from.Scope.SelectedCustomers(); len(c) == 1 {
				customer = c[0]
			}
		}
	}
	r, err := b.run(ctx, scriptRead, mode, from.Pos.Epoch.String(), from.Pos.Seq, count, from.ID, order, customer)
	if err != nil {
		return gateway.Page{}, err
	}
	page, err := b.page(r)
	if err != nil || page.Status != gateway.PageOK || mode != "i" {
		return page, err
	}
	if named := text(r, 9); named != "" && !b.allowed(ctx, from.Scope, named) {
		return gateway.Page{
			Status: gateway.PageUnknown, Start: gateway.Position{Epoch: page.Start.Epoch, Seq: page.Tip},
			Tip: page.Tip, Key: page.Key, Health: page.Health, Leader: page.Leader, Rung: page.Rung,
		}, nil
	}
	return page, nil
}

// allowed says whether the named entry is in scope, with the keys known now.
func (b *Bus) allowed(ctx context.Context, scope gateway.Scope, blob string) bool {
	ev, _, err := unpack(blob, "")
	if err != nil || ev == nil {
		return false
	}
	if scope.Allows(ev.Keys) {
		return true
	}
	filled, err := b.filled(ctx, ev)
	return err == nil && scope.Allows(filled.Keys)
}

// filled returns ev with the keys that the log knows now.
func (b *Bus) filled(ctx context.Context, ev *gateway.Event) (*gateway.Event, error) {
	order := ev.Keys.Order
	if order == "" && ev.Keys.Invoice != "" {
		_, invoices, err := b.Links(ctx, nil, []string{ev.Keys.Invoice})
		if err != nil {
			return nil, err
		}
		order = invoices[0].Order
	}
	if order == "" {
		return ev, nil
	}
	orders, _, err := b.Links(ctx, []string{order}, nil)
	if err != nil {
		return nil, err
	}
	return withLink(ev, order, orders[0].Invoice, orders[0].Customer), nil
}

func withLink(ev *gateway.Event, order, invoice, customer string) *gateway.Event {
	j := gateway.Join{Order: order, Invoice: invoice, Customer: customer}
	filled := *ev
	filled.Keys = j.Keys(ev)
	return &filled
}

// page reads the answer of read.lua.
func (b *Bus) page(r []any) (gateway.Page, error) {
	p := gateway.Page{
		Tip: uint64(number(r, 2)), Key: text(r, 4), Health: unpackHealth(text(r, 5)), Leader: text(r, 6),
		Rung: uint64(number(r, 10)),
	}
	word := text(r, 0)
	if word == "NONE" {
		p.Status = gateway.PageNone
		return p, nil
	}
	epoch, err := gateway.ParseEpoch(text(r, 1))
	if err != nil {
		return p, fmt.Errorf("redisbus: read: %w", err)
	}
	p.Start = gateway.Position{Epoch: epoch, Seq: uint64(number(r, 3))}
	if p.Forks, err = forks(list(r, 8)); err != nil {
		return p, err
	}
	switch word {
	case "OK":
	case "UNKNOWN":
		p.Status = gateway.PageUnknown
		return p, nil
	case "EXPIRED":
		p.Status = gateway.PageExpired
		return p, nil
	case "LOST":
		p.Status = gateway.PageLost
		return p, nil
	default:
		return p, fmt.Errorf("redisbus: read: %w", errGarbage)
	}
	for i, raw := range list(r, 7) {
		e, err := entryOf(raw)
		want := p.Start.Seq + 1 + uint64(i)
		if err != nil {
			// Garbage keeps its place, empty, so that nobody waits for it.
			b.garbage.Add(1)
			e = gateway.Entry{Seq: want, Epoch: epoch}
		}
		if e.Seq != want {
			return p, fmt.Errorf("redisbus: read: entry %d where %d belongs: %w", e.Seq, want, errGarbage)
		}
		p.Entries = append(p.Entries, e)
	}
	return p, nil
}

// forks reads ZRANGE WITHSCORES: flat with RESP2 scores as text, in scripts.
func forks(flat []any) (map[gateway.Epoch]uint64, error) {
	if len(flat) == 0 {
		return nil, nil
	}
	out := make(map[gateway.Epoch]uint64, len(flat)/2)
	for i := 0; i+1 < len(flat); i += 2 {
		member, score := text(flat, i), text(flat, i+1)
		if strings.HasPrefix(member, "#") {
			continue
		}
		epoch, err := gateway.ParseEpoch(member)
		if err != nil {
			return nil, fmt.Errorf("redisbus: fork: %w", err)
		}
		end, err := strconv.ParseFloat(score, 64)
		if err != nil || end < 0 {
			return nil, fmt.Errorf("redisbus: fork: %w", errGarbage)
		}
		out[epoch] = uint64(end)
	}
	return out, nil
}

// Snapshot implements gateway.Log.
func (b *Bus) Snapshot(ctx context.Context, orders []string, customer string) (gateway.Snapshot, error) {
	args := []any{customer, gateway.MaxSnapshotOrders}
	for _, o := range orders {
		args = append(args, o)
	}
	r, err := b.run(ctx, scriptSnapshot, args...)
	if err != nil {
		return gateway.Snapshot{}, err
	}
	word, err := status("snapshot", r)
	if err != nil {
		return gateway.Snapshot{}, err
	}
	if word == "NONE" {
		return gateway.Snapshot{None: true, Missing: orders, Uncovered: customer != ""}, nil
	}
	epoch, err := gateway.ParseEpoch(text(r, 1))
	if err != nil {
		return gateway.Snapshot{}, fmt.Errorf("redisbus: snapshot: %w", err)
	}
	s := gateway.Snapshot{
		Pos: gateway.Position{Epoch: epoch, Seq: uint64(number(r, 2))}, Key: text(r, 3),
		Uncovered: customer != "" && number(r, 5) == 0 && number(r, 4) < stateMaxAge.Milliseconds(),
		Truncated: number(r, 6) == 1 || len(orders) == 0 && number(r, 8) >= 0 && number(r, 8) < stateMaxAge.Milliseconds(),
	}
	var states []state
	for _, raw := range list(r, 7) {
		item, _ := raw.([]any)
		order, missing := text(item, 0), text(item, 3) != ""
		found := b.statesOf(item)
		if !missing && (len(found) == 0 || found[0].ev.Object != gateway.ObjectOrder) {
			s.Missing = append(s.Missing, order)
		}
		for i := range found {
			found[i].ev = withLink(found[i].ev, order, firstLine(text(item, 2)), text(item, 1))
		}
		states = append(states, found...)
	}
	sort.Slice(states, func(i, j int) bool { return states[i].seq < states[j].seq })
	for _, st := range states {
		s.States = append(s.States, *st.ev)
	}
	return s, nil
}

type state struct {
	seq uint64
	ev  *gateway.Event
}

// statesOf reads the states of one order: "<ms>:<seq>:<log seq>:<blob>".
func (b *Bus) statesOf(item []any) []state {
	var out []state
	for i := 4; i <= 6; i++ {
		v := text(item, i)
		if v == "" {
			continue
		}
		parts := strings.SplitN(v, ":", 4)
		if len(parts) != 4 {
			b.garbage.Add(1)
			continue
		}
		seq, err := strconv.ParseUint(parts[2], 10, 64)
		ev, _, err2 := unpack(parts[3], "")
		if err != nil || err2 != nil || ev == nil {
			b.garbage.Add(1)
			continue
		}
		out = append(out, state{seq, ev})
	}
	return out
}

func firstLine(s string) string {
	first, _, _ := strings.Cut(s, "\n")
	return first
}

// Scan implements gateway.Log.
func (b *Bus) Scan(ctx context.Context, before uint64, count int) ([]gateway.Entry, error) {
	end := "+"
	if before == 1 {
		return nil, nil
	}
	if before > 0 {
		end = strconv.FormatUint(before-1, 10) + "-0"
	}
	msgs, err := b.client.XRevRangeN(ctx, b.keys[2], end, "-", int64(count)).Result()
	if err != nil {
		return nil, fmt.Errorf("redisbus: scan: %w", err)
	}
	return b.entriesOf(msgs), nil
}

// ScanUp implements gateway.Log.
func (b *Bus) ScanUp(ctx context.Context, after uint64, count int) ([]gateway.Entry, error) {
	start := strconv.FormatUint(after+1, 10) + "-0"
	msgs, err := b.client.XRangeN(ctx, b.keys[2], start, "+", int64(count)).Result()
	if err != nil {
		return nil, fmt.Errorf("redisbus: scan: %w", err)
	}
	return b.entriesOf(msgs), nil
}

func (b *Bus) entriesOf(msgs []redis.XMessage) []gateway.Entry {
	out := make([]gateway.Entry, 0, len(msgs))
	for _, m := range msgs {
		hex, _ := m.Values["e"].(string)
		blob, _ := m.Values["b"].(string)
		e, err := entryOf([]any{m.ID, []any{"e", hex, "b", blob}})
		if err != nil {
			b.garbage.Add(1)
		}
		if e.Seq > 0 { // garbage keeps its place, so that a scan can go on from it
			out = append(out, e)
		}
	}
	return out
}

// maxRecent bounds the entries that Recent returns.
const maxRecent = 500

// Recent implements gateway.Log.
func (b *Bus) Recent(ctx context.Context, orders []string, customer string) ([]gateway.Entry, error) {
	args := []any{customer, maxRecent}
	for _, o := range orders {
		args = append(args, o)
	}
	r, err := b.run(ctx, scriptRecent, args...)
	if err != nil {
		return nil, err
	}
	out := make([]gateway.Entry, 0, len(r))
	for _, raw := range r {
		item, _ := raw.([]any)
		if len(item) != 4 {
			b.garbage.Add(1)
			continue
		}
		e, err := entryOf(item[0])
		if err != nil || e.Event == nil {
			b.garbage.Add(1)
			continue
		}
		e.Event = withLink(e.Event, text(item, 1), firstLine(text(item, 3)), text(item, 2))
		out = append(out, e)
	}
	return out, nil
}

// Find implements gateway.Log.
func (b *Bus) Find(ctx context.Context, id string) (gateway.Entry, error) {
	score, err := b.client.ZScore(ctx, b.keys[3], id).Result()
	if isNil(err) || strings.HasPrefix(id, "#") {
		return gateway.Entry{}, gateway.ErrNotFound
	}
	if err != nil {
		return gateway.Entry{}, fmt.Errorf("redisbus: find: %w", err)
	}
	found, err := b.Scan(ctx, uint64(score)+1, 1)
	if err != nil {
		return gateway.Entry{}, err
	}
	if len(found) != 1 || found[0].Seq != uint64(score) || found[0].Event == nil {
		return gateway.Entry{}, gateway.ErrNotFound
	}
	found[0].Event, err = b.filled(ctx, found[0].Event)
	return found[0], err
}
