package devnet

import "encoding/json"

// replayLocked returns what a stream that resumes is sent first: all since its
// cursor or, when some of that is out of retention, a control frame and a
// snapshot of the newest.
func (s *Server) replayLocked(req streamRequest) []*frame {
	l := s.events
	start := l.window(retained(s.cfg.Retention, s.faults.Load().Retention))
	if l.lost(req.since, start) {
		return s.snapshotLocked(req, start)
	}
	from := l.after(req.since)
	if s.cfg.InclusiveSince {
		from = l.from(req.since)
	}
	frames := matching(l.events[max(from, start):], req.filter)
	if !s.cfg.ReplayControls {
		return frames
	}
	frames = append([]*frame{controlFrame(control{Type: "replay.started", Since: req.since.String()})}, frames...)
	return append(frames, controlFrame(control{Type: "replay.completed"}))
}

func (s *Server) snapshotLocked(req streamRequest, start int) []*frame {
	ctl := control{Type: "replay.truncated", Since: req.since.String(), Message: "cursor outside retention; sending snapshot"}
	kept := s.events.events[start:]
	if len(kept) > 0 {
		ctl.OldestAvailable = kept[0].id
	}
	frames := matching(kept, req.filter)
	frames = frames[max(0, len(frames)-s.cfg.SnapshotSize):]
	return append([]*frame{controlFrame(ctl)}, frames...)
}

func matching(events []*event, f filter) []*frame {
	frames := make([]*frame, 0, len(events))
	for _, ev := range events {
		if f.match(ev) {
			frames = append(frames, &ev.frame)
		}
	}
	return frames
}

type control struct {
	Object          string `json:"object"`
	Type            string `json:"type"`
	Since           string `json:"since,omitempty"`
	OldestAvailable string `json:"oldest_available,omitempty"`
	Message         string `json:"message,omitempty"`
}

func controlFrame(c control) *frame {
	c.Object = "ws_control"
	data, err := json.Marshal(c)
	if err != nil {
		panic(err) // a struct of strings always encodes
	}
	return &frame{data: data}
}
