package main

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"time"

	"pepay-gateway/gateway/devnet"
	"pepay-gateway/web"
)

const (
	demoBodyBytes = 4 << 10
	demoTimeout   = 5 * time.Second
	stallFor      = 10 * time.Second
)

// A demo plays the merchant's backend for the storefront: it creates orders in
// the devnet, mints the shopper's token, moves orders, and plays faults. Only
// dev has it.
type demo struct {
	dev    *dev
	client *http.Client
	http.Handler
}

func newDemo(d *dev) *demo {
	m := &demo{dev: d, client: &http.Client{Timeout: demoTimeout}}
	mux := http.NewServeMux()
	mux.Handle("/", web.Storefront())
	mux.HandleFunc("POST /demo/session", m.session)
	mux.HandleFunc("POST /demo/orders", m.placeOrder)
	mux.HandleFunc("POST /demo/orders/{id}/simulate", m.simulate)
	mux.HandleFunc("POST /demo/faults/{fault}", m.fault)
	m.Handler = mux
	return m
}

// session mints the shopper's token, as a merchant's backend does once it knows
// who is logged in.
func (m *demo) session(w http.ResponseWriter, r *http.Request) {
	var in struct {
		CustomerID string `json:"customer_id"`
	}
	if !readJSON(w, r, &in) {
		return
	}
	if in.CustomerID == "" {
		in.CustomerID = "cust_" + rand.Text()[:8]
	}
	body, err := json.Marshal(map[string]any{"scope": "commerce", "customer_id": in.CustomerID})
	if err != nil {
		writeError(w, http.StatusInternalServerError, "INTERNAL", "could not ask for a token")
		return
	}
	var minted struct {
		Data map[string]any `json:"data"`
	}
	status, err := m.post(r.Context(), "http://"+m.dev.public+"/api/v1/ws/token", devKey, body, &minted)
	if err != nil || status != http.StatusOK {
		writeError(w, http.StatusBadGateway, "MINT_FAILED", "the gateway gave no token; try again")
		return
	}
	minted.Data["customer_id"] = in.CustomerID
	writeJSON(w, http.StatusOK, minted.Data)
}

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
	order, err := m.dev.pepay.CreateOrder(devnet.NewOrder{
		CustomerID: in.CustomerID, RefundWallet: "0x00000000000000000000000000000000000000a1",
	})
	if err != nil {
		writeError(w, http.StatusBadRequest, "ORDER_REFUSED", err.Error())
		return
	}
	writeJSON(w, http.StatusCreated, map[string]any{"order_id": order.ID, "invoice_id": order.InvoiceID, "customer_id": in.CustomerID})
}

func (m *demo) simulate(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, demoBodyBytes))
	if err != nil {
		writeError(w, http.StatusRequestEntityTooLarge, "BODY_TOO_LARGE", "the body is too large")
		return
	}
	var answer json.RawMessage
	url := m.dev.pepayURL + "/api/commerce/devnet/orders/" + r.PathValue("id") + "/simulate"
	status, err := m.post(r.Context(), url, devnet.DefaultAPIKey, body, &answer)
	if err != nil {
		writeError(w, http.StatusBadGateway, "DEVNET_FAILED", "the local Pepay did not answer")
		return
	}
	writeJSON(w, status, answer)
}

// fault plays one: the page shows how the stream gets over it.
func (m *demo) fault(w http.ResponseWriter, r *http.Request) {
	var in struct {
		CustomerID string `json:"customer_id"`
	}
	if !readJSON(w, r, &in) {
		return
	}
	switch r.PathValue("fault") {
	case "cut":
		m.dev.mu.Lock()
		n := m.dev.current
		m.dev.mu.Unlock()
		n.public.Cut(in.CustomerID)
	case "stall":
		if err := m.dev.stall(); err != nil {
			writeError(w, http.StatusConflict, "BUSY", err.Error())
			return
		}
	case "restart":
		m.dev.mu.Lock()
		restart := m.dev.restart
		m.dev.mu.Unlock()
		time.AfterFunc(50*time.Millisecond, restart) // after the answer
	default:
		writeError(w, http.StatusNotFound, "NOT_FOUND", "faults are cut, stall and restart")
		return
	}
	writeJSON(w, http.StatusAccepted, map[string]any{"success": true})
}

// stall silences the devnet's streams for a while; what happens meanwhile comes
// later, by REST.
func (d *dev) stall() error {
	f := d.pepay.Faults()
	if f.Silent {
		return errors.New("it is stalled already")
	}
	f.Silent = true
	if err := d.pepay.SetFaults(f); err != nil {
		return err
	}
	time.AfterFunc(stallFor, func() {
		f := d.pepay.Faults()
		f.Silent = false
		_ = d.pepay.SetFaults(f) // valid before, valid now
		d.pepay.Cut(devnet.Ending{})
	})
	return nil
}

func (m *demo) post(ctx context.Context, url, key string, body []byte, answer any) (int, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, url, bytes.NewReader(body))
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
