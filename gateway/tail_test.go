package gateway

import (
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// deafen takes everything away that is announced to c by its subscriptions up to
// the n-th.
func deafen(c *memClient, n int) {
	c.setAnnounce(func(Announcement) []time.Duration {
		if c.calls["tail"] <= n { // called under the log's lock
			return nil
		}
		return []time.Duration{0}
	})
}

func TestDeadSubscriptionIsNoticedAndMadeAnew(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l, u := newMemLog(), newUpstream()
		startMember(t, l, u, testLease)
		n, c := startNode(t, l, NodeConfig{})
		time.Sleep(3 * time.Second)
		sub, got := live(t, n, account)
		deafen(c, 1)
		dead := time.Now()
		u.emit(someEvents(0, 5)...)
		time.Sleep(pollEvery)
		synctest.Wait()
		if got.drain(sub); len(got.ids()) != 5 {
			t.Errorf("%d events on a dead subscription, want 5 by the poll", len(got.ids()))
		}
		for c.called("tail") == 1 {
			time.Sleep(10 * time.Millisecond)
			synctest.Wait() // what is due now has happened
		}
		if d := time.Since(dead); d > 5*time.Second {
			t.Errorf("noticed after %v, want within 5s", d)
		}
		time.Sleep(time.Minute)
		if s := n.Stats(); s.DeadTails != 1 || s.TailSilent > pollEvery || c.called("tail") != 2 {
			t.Errorf("%d subscriptions given up and %d made, silent for %v; want 1, 2 and less than a second",
				s.DeadTails, c.called("tail"), s.TailSilent)
		}
		u.emit(someEvents(5, 1)...)
		synctest.Wait()
		if got.drain(sub); len(got.ids()) != 6 {
			t.Errorf("%d events, want the sixth at once", len(got.ids()))
		}
	})
}

func TestSubscribingInVainBacksOff(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newMemLog()
		startMember(t, l, newUpstream(), testLease)
		n, c := startNode(t, l, NodeConfig{})
		time.Sleep(3 * time.Second)
		deafen(c, 1_000_000)
		time.Sleep(10 * time.Minute)
		if got := n.Stats(); got.DeadTails < 10 || got.DeadTails > 16 || got.TailSilent < 9*time.Minute {
			t.Errorf("%d subscriptions given up in ten minutes, silent for %v; want some dozen, and all of the time", got.DeadTails, got.TailSilent)
		}
		c.setAnnounce(nil)
		time.Sleep(3 * time.Second)
		before := n.Stats().DeadTails
		deafen(c, 1_000_000)
		time.Sleep(5 * time.Second)
		if got := n.Stats().DeadTails - before; got < 1 || got > 2 {
			t.Errorf("%d given up within 5s of having heard something, want one or two", got)
		}
	})
}

// Whatever else is silent must not be taken for a dead subscription.
func TestSilenceOfAnotherKindIsNoDeadSubscription(t *testing.T) {
	for name, happen := range map[string]func(t *testing.T, l *memLog, leader *member, c *memClient){
		"quiet shop":         func(*testing.T, *memLog, *member, *memClient) {},
		"leader crashed":     func(_ *testing.T, _ *memLog, leader *member, _ *memClient) { leader.crash() },
		"leader ended":       func(_ *testing.T, _ *memLog, leader *member, _ *memClient) { leader.stop() },
		"leader cut off":     func(_ *testing.T, _ *memLog, leader *member, _ *memClient) { leader.c.cut(memFault{hang: true}) },
		"log emptied":        func(_ *testing.T, l *memLog, _ *member, _ *memClient) { l.wipe() },
		"log lost its end":   func(_ *testing.T, l *memLog, _ *member, _ *memClient) { l.rewind(0) },
		"node without a log": func(_ *testing.T, _ *memLog, _ *member, c *memClient) { c.cut(memFault{hang: true}) },
		"everybody without a log": func(_ *testing.T, _ *memLog, leader *member, c *memClient) {
			c.cut(memFault{refuse: true})
			leader.c.cut(memFault{refuse: true})
		},
		"answers that come late": func(_ *testing.T, _ *memLog, _ *member, c *memClient) {
			c.setFault(func(string) memFault { return memFault{lateReply: 900 * time.Millisecond} })
		},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				l, u := newMemLog(), newUpstream()
				leader := startMember(t, l, u, testLease)
				leaderOf(t, time.Second, leader)
				startMember(t, l, u, testLease)
				n, c := startNode(t, l, NodeConfig{})
				time.Sleep(10 * time.Second)
				happen(t, l, leader, c)
				time.Sleep(time.Minute)
				c.heal()
				leader.c.heal()
				time.Sleep(time.Minute)
				if got := n.Stats().DeadTails; got != 0 || c.called("tail") != 1 {
					t.Errorf("%d subscriptions given up, want none", got)
				}
			})
		})
	}
}

// A leader of an earlier version rings nothing, and counts nothing.
func TestLeaderThatNeverRings(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newMemLog()
		newWriter(t, l)
		n, _ := startNode(t, l, NodeConfig{})
		time.Sleep(10 * time.Minute)
		if s := n.Stats(); s.DeadTails != 0 || s.TailSilent != 0 {
			t.Errorf("%d subscriptions given up, silent for %v, want none and not at all", s.DeadTails, s.TailSilent)
		}
	})
}

func TestTailConcurrentUse(t *testing.T) {
	var tl tail
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			for i := range 1000 {
				tl.begin(func(error) {})
				tl.rang(uint64(i), time.Now())
				tl.heard()
				_, _ = tl.stats()
			}
		})
	}
	wg.Wait()
}
