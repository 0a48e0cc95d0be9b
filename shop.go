package main

import (
	"crypto/rand"
	"net/http"

	"pepay-gateway/gateway/devnet"
)

const (
	shopperCookie = "shopper"
	maxQuantity   = 10
)

// checkout takes a basket to Pepay, as a shop's backend does: an estimate of the
// goods, then the order with its invoice. A visitor becomes a shopper by it.
func (m *demo) checkout(w http.ResponseWriter, r *http.Request) {
	var in struct {
		Items []struct {
			Product  string `json:"product"`
			Quantity int    `json:"quantity"`
		} `json:"items"`
	}
	if !readJSON(w, r, &in) {
		return
	}
	var goods []map[string]any
	for _, item := range in.Items {
		title, price := product(item.Product)
		if title == "" || item.Quantity < 1 || item.Quantity > maxQuantity {
			writeError(w, http.StatusBadRequest, "BAD_REQUEST", "the shop does not sell that")
			return
		}
		goods = append(goods, map[string]any{"productId": item.Product, "title": title, "price": price, "quantity": item.Quantity})
	}
	if len(goods) == 0 {
		writeError(w, http.StatusBadRequest, "BAD_REQUEST", "the basket is empty")
		return
	}
	shopper := signedIn(r)
	if shopper == "" {
		shopper = "cust_" + rand.Text()[:8]
		http.SetCookie(w, cookie(shopper))
	}
	var estimate struct {
		Data struct {
			ID string `json:"estimateId"`
		} `json:"data"`
	}
	var order struct {
		Data struct {
			ID string `json:"orderId"`
		} `json:"data"`
	}
	api := m.dev.pepayURL + "/api/commerce/merchant/checkout/"
	err := m.ask(r.Context(), api+"estimate", devnet.DefaultAPIKey, map[string]any{"items": goods}, &estimate)
	if err == nil {
		err = m.ask(r.Context(), api+"invoice", devnet.DefaultAPIKey, map[string]any{
			"customer_id": shopper, "estimateId": estimate.Data.ID, "refundDestinationWalletAddressBsc": refundWallet,
		}, &order)
	}
	if err != nil {
		writeError(w, http.StatusBadGateway, "CHECKOUT_FAILED", "the order could not be placed; try again")
		return
	}
	writeJSON(w, http.StatusCreated, map[string]string{"order_id": order.Data.ID})
}

// product is what the shop sells, at the backend's price whatever a page says.
func product(id string) (title, price string) {
	switch id {
	case "lamp":
		return "Desk lamp", "49.00"
	case "mug":
		return "Coffee mug", "12.50"
	case "notebook":
		return "Notebook, dotted", "7.25"
	}
	return "", ""
}

// token gets the page a token: for nobody 401, for somebody else's order 404.
// It opens all orders of the shopper, so that all their tabs share one stream.
func (m *demo) token(w http.ResponseWriter, r *http.Request) {
	var in struct {
		OrderID string `json:"order_id"`
	}
	if !readJSON(w, r, &in) {
		return
	}
	shopper := signedIn(r)
	if shopper == "" {
		writeError(w, http.StatusUnauthorized, "SIGNED_OUT", "nobody is signed in")
		return
	}
	// Without this check anybody could follow anybody's order.
	if order, err := m.dev.pepay.Order(in.OrderID); in.OrderID != "" && (err != nil || order.CustomerID != shopper) {
		writeError(w, http.StatusNotFound, "NOT_FOUND", "there is no such order")
		return
	}
	var minted struct {
		Data map[string]any `json:"data"`
	}
	err := m.ask(r.Context(), "http://"+m.dev.public+"/api/v1/ws/token", devKey, map[string]any{"customer_id": shopper}, &minted)
	if err != nil {
		writeError(w, http.StatusBadGateway, "MINT_FAILED", "the gateway gave no token; try again")
		return
	}
	writeJSON(w, http.StatusOK, minted.Data)
}

func (m *demo) signOut(w http.ResponseWriter, _ *http.Request) {
	gone := cookie("")
	gone.MaxAge = -1
	http.SetCookie(w, gone)
	writeJSON(w, http.StatusOK, map[string]any{"success": true})
}

// signedIn is the shopper of this browser, "" for none. A real shop would not
// take a cookie's word for it.
func signedIn(r *http.Request) string {
	c, err := r.Cookie(shopperCookie)
	if err != nil {
		return ""
	}
	return c.Value
}

func cookie(shopper string) *http.Cookie {
	return &http.Cookie{Name: shopperCookie, Value: shopper, Path: "/", HttpOnly: true, SameSite: http.SameSiteStrictMode}
}
