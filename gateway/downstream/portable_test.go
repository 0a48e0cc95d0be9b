package downstream

import (
	"net"
	"testing"
)

// portable has rigs give their connections as systems without a poller do: they
// can be read and written, and nothing else. Tests here run one at a time.
var portable bool

type portableListener struct{ net.Listener }

func (l portableListener) Accept() (net.Conn, error) {
	conn, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	return struct{ net.Conn }{conn}, nil
}

// Where connections cannot be polled each is read in a goroutine, and every write
// may block. Clients see no difference.
func TestStreamsWithoutAPoller(t *testing.T) {
	portable = true
	defer func() { portable = false }()
	for name, test := range map[string]func(*testing.T){
		"begin":           TestStreamBeginsWithSnapshotThenLive,
		"resume":          TestStreamResumes,
		"plain":           TestPlainWebSocketGetsEventsAlone,
		"tips":            TestTipsKeepQuietClientsResumable,
		"ping":            TestPingIsAnsweredByATip,
		"slow":            TestSlowClientCatchesUp,
		"frames":          TestWebSocketFrames,
		"with handshake":  TestFramesThatCameWithTheHandshake,
		"behind requests": TestBytesBehindTheRequestOfAnEventStream,
		"asleep":          TestClientThatDoesNotReadDelaysNobody,
		"never cross":     TestPooledConnectionsNeverCross,
		"leave":           TestSubscriberLeavesWithItsClient,
		"session":         TestSessionEnds,
		"drain":           TestDrain,
		"end":             TestServeEndsWithOpenStreams,
	} {
		t.Run(name, test)
	}
}
