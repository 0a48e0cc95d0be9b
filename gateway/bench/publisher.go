package bench

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"sync/atomic"
	"time"

	"pepay-gateway/gateway/socket"
)

// tellEvery is how often people hear of a long measurement.
const tellEvery = 5 * time.Second

// A publisher sends events over one HTTP connection, which it opens with the
// first, and does not wait for the answers: a slow server must not slow the
// arrivals down.
type publisher struct {
	fleet  *fleet
	tell   func(format string, args ...any) // people how far it is
	conn   net.Conn                         // nil until the first event, as are the next two
	out    *bufio.Writer
	alarm  *alarm
	failed atomic.Pointer[error]
	done   chan struct{} // closed when answerLoop has ended
}

func newPublisher(f *fleet, tell func(string, ...any)) *publisher {
	return &publisher{fleet: f, tell: tell, done: make(chan struct{})}
}

func (p *publisher) open() (err error) {
	if p.alarm, err = newAlarm(); err != nil {
		return fmt.Errorf("bench: publish: %w", err)
	}
	conn, err := net.DialTimeout("tcp4", p.fleet.target.publishAddr(), connectTimeout)
	if err != nil {
		p.alarm.close()
		return fmt.Errorf("bench: publish: %w", err)
	}
	p.conn = socket.Wrap(conn)
	p.out = bufio.NewWriterSize(p.conn, 64<<10)
	go p.answerLoop()
	return nil
}

func (p *publisher) close() {
	if p.conn != nil {
		_ = p.conn.Close() // whoever is interested has flushed
		p.alarm.close()
		<-p.done
	}
}

func (p *publisher) flush() error {
	if p.conn == nil {
		return nil
	}
	if err := p.out.Flush(); err != nil {
		return fmt.Errorf("bench: publish: %w", err)
	}
	return nil
}

// answersEvery is how long answers may wait to be looked at: to be woken for each
// of them would be a good part of what the clients take.
const answersEvery = 20 * time.Millisecond

// answerLoop looks for answers that are no success.
func (p *publisher) answerLoop() {
	defer close(p.done)
	in := bufio.NewReaderSize(p.conn, 64<<10)
	for {
		if in.Buffered() == 0 {
			time.Sleep(answersEvery)
		}
		resp, err := http.ReadResponse(in, nil)
		if err != nil {
			return // closed
		}
		body, err := io.ReadAll(io.LimitReader(resp.Body, 4096))
		if resp.StatusCode >= 300 || err != nil {
			err := fmt.Errorf("bench: publish: %s: %s", resp.Status, body)
			p.failed.Store(&err)
			return
		}
	}
}

// send publishes the next event, which was due at due.
func (p *publisher) send(due time.Time) error {
	if err := p.failed.Load(); err != nil {
		return *err
	}
	if p.conn == nil {
		if err := p.open(); err != nil {
			return err
		}
	}
	n, key, err := p.fleet.announce(due)
	if err != nil {
		return err
	}
	if _, err := p.out.Write(p.fleet.target.post(n, key, p.fleet.script.event(n, key))); err != nil {
		return fmt.Errorf("bench: publish: %w", err)
	}
	return nil
}

// steadily publishes at a rate, whatever becomes of the events: arrivals are
// open loop, and a latency counts from when its event was due.
func (p *publisher) steadily(ctx context.Context, rate float64, d time.Duration) error {
	return p.paced(ctx, rate, int64(rate*d.Seconds()))
}

// paced is steadily for so many events.
func (p *publisher) paced(ctx context.Context, rate float64, count int64) error {
	began, told := time.Now(), time.Now()
	for i := range count {
		due := began.Add(time.Duration(float64(i) / rate * float64(time.Second)))
		if time.Now().Before(due) {
			if err := p.flush(); err != nil {
				return err
			}
			if err := p.sleepUntil(ctx, due); err != nil {
				return err
			}
			if time.Since(told) > tellEvery {
				told = time.Now()
				events, expected, delivered := p.fleet.counts()
				p.tell("%d events, %d of %d deliveries", events, delivered, expected)
			}
		}
		if err := p.send(due); err != nil {
			return err
		}
	}
	return p.flush()
}

// ahead publishes as fast as events are received, at most window of them ahead
// of the clients, for d.
func (p *publisher) ahead(ctx context.Context, window int64, d time.Duration) error {
	for end := time.Now().Add(d); time.Now().Before(end); {
		_, expected, delivered := p.fleet.counts()
		clients := int64(len(p.fleet.clients))
		if expected-delivered < window*clients {
			if err := p.send(time.Now()); err != nil {
				return err
			}
			continue
		}
		if err := p.flush(); err != nil {
			return err
		}
		if err := sleep(ctx, 200*time.Microsecond); err != nil {
			return err
		}
	}
	return p.flush()
}

// burst publishes count events at once.
func (p *publisher) burst(count int) error {
	for range count {
		if err := p.send(time.Now()); err != nil {
			return err
		}
	}
	return p.flush()
}

func sleep(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return context.Cause(ctx)
	case <-t.C:
		return nil
	}
}

// sleepUntil sleeps until due, and is seldom late.
func (p *publisher) sleepUntil(ctx context.Context, due time.Time) error {
	for {
		switch wait := time.Until(due); {
		case ctx.Err() != nil:
			return context.Cause(ctx)
		case wait <= 0:
			return nil
		case wait > 5*time.Millisecond:
			_ = sleep(ctx, wait-2*time.Millisecond) // the loop looks at ctx
		default:
			if err := p.alarm.sleep(wait); err != nil {
				return fmt.Errorf("bench: alarm: %w", err)
			}
		}
	}
}
