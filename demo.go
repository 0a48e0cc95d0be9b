package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"time"

	"pepay-gateway/gateway/devnet"
	"pepay-gateway/web"
)

const (
	demoBodyBytes = 4 << 10
	demoTimeout   = 5 * time.Second
	stallFor      = time.Minute
	refundWallet  = "0x00000000000000000000000000000000000000a1"
)

// A demo is the shop of dev: its pages, its backend (shop.go), and below /demo/
// what moves its orders on and plays faults, which a shop does not have.
type demo struct {
	dev    *dev
	client *http.Client
	http.Handler
}

func newDemo(d *dev) *demo {
	m := &demo{dev: d, client: &http.Client{Timeout: demoTimeout}}
	mux := http.NewServeMux()
	mux.Handle("/", web.Storefront())
	mux.HandleFunc("POST /checkout", m.checkout)
	mux.HandleFunc("POST /token", m.token)
	mux.HandleFunc("POST /sign-out", m.signOut)
	mux.HandleFunc("POST /demo/orders", m.placeOrder)
	mux.HandleFunc("POST /demo/orders/{id}/simulate", m.simulate)
	mux.HandleFunc("POST /demo/faults/{fault}", m.fault)
	m.Handler = mux
	return m
}

// placeOrder orders something for any customer, from a shell.
func (m *demo) placeOrder(w http.ResponseWriter, r *http.Request) {
	var in struct {
		CustomerID string `json:"customer_id"`
	}
	if !readJSON(w, r, &in) {
		return
	}
	if in.CustomerID == "" {
		writeError(w, http.StatusBadRequest, "BAD_REQUEST", `send {"customer_id":"cust_1"}`)
		return
	}
	order, err := m.dev.pepay.CreateOrder(devnet.NewOrder{CustomerID: in.CustomerID, RefundWallet: refundWallet})
	if err != nil {
		writeError(w, http.StatusBadRequest, "ORDER_REFUSED", err.Error())
		return
	}
	writeJSON(w, http.StatusCreated, map[string]any{"order_id": order.ID, "invoice_id": order.InvoiceID, "customer_id": in.CustomerID})
}

func (m *demo) simulate(w http.ResponseWriter, r *http.Request) {
	var transition, answer json.RawMessage
	if !readJSON(w, r, &transition) {
		return
	}
	url := m.dev.pepayURL + "/api/commerce/devnet/orders/" + r.PathValue("id") + "/simulate"
	status, err := m.post(r.Context(), url, devnet.DefaultAPIKey, transition, &answer)
	if err != nil {
		writeError(w, http.StatusBadGateway, "DEVNET_FAILED", "the local Pepay did not answer")
		return
	}
	writeJSON(w, status, answer)
}

// fault plays one: the pages show how the stream gets over it.
func (m *demo) fault(w http.ResponseWriter, r *http.Request) {
	m.dev.mu.Lock()
	node, restart := m.dev.current, m.dev.restart
	m.dev.mu.Unlock()
	switch r.PathValue("fault") {
	case "cut":
		node.public.Cut(signedIn(r))
	case "stall":
		m.dev.stall()
	case "unstall":
		m.dev.unstall()
	case "restart":
		time.AfterFunc(50*time.Millisecond, restart) // after the answer
	default:
		writeError(w, http.StatusNotFound, "NOT_FOUND", "faults are cut, stall, unstall and restart")
		return
	}
	writeJSON(w, http.StatusAccepted, map[string]any{"success": true})
}

// stall silences the devnet's streams for a minute. They stay open, and what is
// due on them is lost.
func (d *dev) stall() {
	d.silence(true)
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.stalled != nil {
		d.stalled.Stop()
	}
	d.stalled = time.AfterFunc(stallFor, d.unstall)
}

// unstall ends a stall, by cutting the streams: the next ones bring what was lost.
func (d *dev) unstall() {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.stalled == nil {
		return
	}
	d.stalled.Stop()
	d.stalled = nil
	d.silence(false)
	d.pepay.Cut(devnet.Ending{})
}

func (d *dev) silence(silent bool) {
	f := d.pepay.Faults()
	f.Silent = silent
	_ = d.pepay.SetFaults(f) // valid before, valid now
}

// ask is post for what must succeed.
func (m *demo) ask(ctx context.Context, url, key string, body, answer any) error {
	status, err := m.post(ctx, url, key, body, answer)
	if err == nil && status != http.StatusOK {
		err = fmt.Errorf("status %d", status)
	}
	return err
}

func (m *demo) post(ctx context.Context, url, key string, body, answer any) (int, error) {
	sent, err := json.Marshal(body)
	if err != nil {
		return 0, err
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, url, bytes.NewReader(sent))
	if err != nil {
		return 0, err
	}
	req.Header.Set("Content-Type", "application/json")
	req.Header.Set("x-api-key", key)
	resp, err := m.client.Do(req)
	if err != nil {
		return 0, err
	}
	defer func() { _ = resp.Body.Close() }() // read to its end below
	return resp.StatusCode, json.NewDecoder(io.LimitReader(resp.Body, 1<<20)).Decode(answer)
}

// readJSON reads a small body; an empty one is fine. On false it has answered.
func readJSON(w http.ResponseWriter, r *http.Request, v any) bool {
	err := json.NewDecoder(http.MaxBytesReader(w, r.Body, demoBodyBytes)).Decode(v)
	if err != nil && !errors.Is(err, io.EOF) {
		writeError(w, http.StatusBadRequest, "BAD_REQUEST", "the body is no JSON object")
		return false
	}
	return true
}

func writeJSON(w http.ResponseWriter, status int, v any) {
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Cache-Control", "no-store")
	w.WriteHeader(status)
	enc := json.NewEncoder(w)
	enc.SetEscapeHTML(false)
	_ = enc.Encode(v) // the peer may be gone
}

func writeError(w http.ResponseWriter, status int, code, message string) {
	writeJSON(w, status, map[string]any{"success": false, "error": map[string]string{"code": code, "message": message}})
}
