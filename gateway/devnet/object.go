package devnet

import (
	"encoding/json"
	"fmt"
	"time"
)

// A stamp is a time in an object: unix seconds, or ISO 8601 by switch, and
// null when it has not happened.
type stamp struct {
	time.Time
	iso bool
}

func (t stamp) MarshalJSON() ([]byte, error) {
	switch {
	case t.IsZero():
		return []byte("null"), nil
	case t.iso:
		return json.Marshal(isoTime(t.Time))
	}
	return json.Marshal(t.Unix())
}

func isoTime(t time.Time) string { return t.UTC().Format("2006-01-02T15:04:05.000Z") }

// An orderObject is the union of both documented forms of a commerce_order.
type orderObject struct {
	Object             string          `json:"object"`
	ID                 string          `json:"id"`
	InvoiceIDSnake     string          `json:"invoice_id"`
	OrderID            string          `json:"orderId"`
	InvoiceID          string          `json:"invoiceId"`
	MerchantID         int             `json:"merchantId"`
	NetworkEnvironment string          `json:"networkEnvironment"`
	Retailer           string          `json:"retailer"`
	CreatedAt          stamp           `json:"createdAt"`
	UpdatedAt          stamp           `json:"updatedAt"`
	CustomerID         *string         `json:"customerId"`
	WalletAddress      *string         `json:"walletAddress"`
	WalletNetwork      *string         `json:"walletNetwork"`
	Status             string          `json:"status"`
	Substatus          *string         `json:"substatus"`
	Actions            orderActions    `json:"actions"`
	Timeline           []timelineEntry `json:"timeline"`
	Payment            orderPayment    `json:"payment"`
	Fulfillment        fulfillment     `json:"fulfillment"`
	LineItems          []lineItem      `json:"lineItems"`
	ShippingAddress    any             `json:"shippingAddress"`
	CancellationStatus string          `json:"cancellationStatus"`
	RefundStatus       string          `json:"refundStatus"`
	TotalAmountUSD     string          `json:"totalAmountUsd"`
	CommerceFeeUSD     string          `json:"commerceFeeUsd"`
	Refund             orderRefund     `json:"refund"`
}

type orderActions struct {
	CanCancel bool `json:"canCancel"`
}

type orderPayment struct {
	Status     string          `json:"status"`
	TxHash     *string         `json:"txHash"`
	Settlement orderSettlement `json:"settlement"`
}

type orderSettlement struct {
	Status  string  `json:"status"`
	TxHash  *string `json:"txHash"`
	Network *string `json:"network"`
}

type fulfillment struct {
	Shipments []shipment `json:"shipments"`
}

type orderRefund struct {
	Status      string  `json:"status"`
	AmountUSD   *string `json:"amountUsd"`
	FeeUSD      *string `json:"feeUsd"`
	Destination *string `json:"destinationWalletAddressBsc"`
	TxHash      *string `json:"txHash"`
}

type invoiceObject struct {
	Object                 string   `json:"object"`
	ID                     string   `json:"id"`
	MerchantID             int      `json:"merchant_id"`
	Status                 string   `json:"status"`
	InvoiceType            string   `json:"invoice_type"`
	Currency               string   `json:"currency"`
	Amount                 int64    `json:"amount"`
	AmountDecimal          string   `json:"amount_decimal"`
	AmountPaid             int64    `json:"amount_paid"`
	AmountPaidDecimal      string   `json:"amount_paid_decimal"`
	AmountRemaining        int64    `json:"amount_remaining"`
	AmountRemainingDecimal string   `json:"amount_remaining_decimal"`
	AmountUnit             string   `json:"amount_unit"`
	CustomerID             *string  `json:"customer_id"`
	PayerWalletAddress     *string  `json:"payer_wallet_address"`
	PayerWalletNetwork     *string  `json:"payer_wallet_network"`
	CommerceOrderID        string   `json:"commerce_order_id"`
	Environment            string   `json:"environment"`
	ExpiresAt              stamp    `json:"expires_at"`
	CreatedAt              stamp    `json:"created_at"`
	PaidAt                 stamp    `json:"paid_at"`
	LastPaymentAt          stamp    `json:"last_payment_at"`
	Metadata               struct{} `json:"metadata"`
}

type paymentObject struct {
	Object           string            `json:"object"`
	ID               string            `json:"id"`
	InvoiceID        string            `json:"invoice_id"`
	MerchantID       int               `json:"merchant_id"`
	Status           string            `json:"status"`
	SettlementStatus string            `json:"settlement_status"`
	Settlement       paymentSettlement `json:"settlement"`
	AmountUSD        string            `json:"amount_usd"`
	Environment      string            `json:"environment"`
}

type paymentSettlement struct {
	SummaryStatus        string  `json:"summary_status"`
	Stage                string  `json:"stage"`
	MerchantSettlementID *string `json:"merchant_settlement_id"`
	SettlementTxHash     *string `json:"settlement_tx_hash"`
	Network              string  `json:"network"`
	Status               string  `json:"status"`
}

// present is s, or null when there is none yet.
func present(s string) *string {
	if s == "" {
		return nil
	}
	return &s
}

// when is s under a condition, else null.
func when(cond bool, s string) *string {
	if !cond {
		return nil
	}
	return &s
}

func choose(cond bool, yes, no string) string {
	if cond {
		return yes
	}
	return no
}

// txHash makes up a transaction's hash that stays the same for an order.
func txHash(kind byte, o *order) string { return fmt.Sprintf("0x%02x%s", kind, o.id[:8]) }

func (s *Server) stamp(t time.Time) stamp { return stamp{t, s.faults.Load().ISOTimestamps} }

func (s *Server) orderObject(o *order) orderObject {
	refund := choose(o.refunded, "REFUNDED", "NONE")
	return orderObject{
		Object: "commerce_order", ID: o.id, InvoiceIDSnake: o.invoiceID, OrderID: o.id, InvoiceID: o.invoiceID,
		MerchantID: s.cfg.MerchantID, NetworkEnvironment: s.cfg.Environment, Retailer: "amazon",
		CreatedAt: s.stamp(o.createdAt), UpdatedAt: s.stamp(o.updatedAt),
		CustomerID: present(o.customer), WalletAddress: present(o.wallet), WalletNetwork: present(o.network),
		Status: o.status, Substatus: present(o.substatus),
		Actions:  orderActions{CanCancel: o.status == statusPlaced},
		Timeline: o.timeline,
		Payment: orderPayment{
			Status: choose(o.paid(), "paid", "unpaid"), TxHash: when(o.paid(), txHash(0xaa, o)),
			Settlement: orderSettlement{
				Status: choose(o.settled, "settled", "pending"), TxHash: when(o.settled, txHash(0xbb, o)),
				Network: when(o.settled, "bsc"),
			},
		},
		Fulfillment: fulfillment{append([]shipment{}, o.shipments...)}, LineItems: o.items, ShippingAddress: o.address,
		CancellationStatus: choose(o.status == statusCancelled, "cancelled", "none"), RefundStatus: refund,
		TotalAmountUSD: dollars(o.millis()), CommerceFeeUSD: dollars(o.fee()),
		Refund: orderRefund{
			Status: refund, AmountUSD: when(o.refunded, dollars(o.goods())), FeeUSD: when(o.refunded, "0.00"),
			Destination: present(o.refundWallet), TxHash: when(o.refunded, txHash(0xcc, o)),
		},
	}
}

func (s *Server) invoiceObject(o *order) invoiceObject {
	paid := int64(0)
	if o.paid() {
		paid = o.millis()
	}
	rest := o.millis() - paid
	return invoiceObject{
		Object: "invoice", ID: o.invoiceID, MerchantID: s.cfg.MerchantID, Status: o.invoiceStatus,
		InvoiceType: "commerce", Currency: "usd", AmountUnit: "usd_millis",
		Amount: o.millis(), AmountDecimal: decimal(o.millis()), AmountPaid: paid, AmountPaidDecimal: decimal(paid),
		AmountRemaining: rest, AmountRemainingDecimal: decimal(rest),
		CustomerID: present(o.customer), PayerWalletAddress: present(o.wallet), PayerWalletNetwork: present(o.network),
		CommerceOrderID: o.id, Environment: s.cfg.Environment,
		ExpiresAt: s.stamp(o.expiresAt), CreatedAt: s.stamp(o.createdAt), PaidAt: s.stamp(o.paidAt), LastPaymentAt: s.stamp(o.paidAt),
	}
}

func decimal(millis int64) string { return fmt.Sprintf("%d.%03d", millis/1000, millis%1000) }

func (s *Server) paymentObject(o *order) paymentObject {
	state := choose(o.settled, "settled", "pending")
	return paymentObject{
		Object: "invoice_payment", ID: o.paymentID, InvoiceID: o.invoiceID, MerchantID: s.cfg.MerchantID,
		Status: "confirmed", SettlementStatus: state,
		Settlement: paymentSettlement{
			SummaryStatus: state, Stage: choose(o.settled, "complete", "queued"),
			MerchantSettlementID: when(o.settled, "set_"+o.id[:8]), SettlementTxHash: when(o.settled, txHash(0xbb, o)),
			Network: "bsc", Status: state,
		},
		AmountUSD: dollars(o.millis()), Environment: s.cfg.Environment,
	}
}

func (s *Server) emitOrderLocked(typ string, o *order, previous map[string]any) {
	s.emitLocked(change{
		typ, s.orderObject(o), minimalObject{"commerce_order", o.id, o.status, o.invoiceID}, o.keys(), previous,
	})
}

func (s *Server) emitInvoiceLocked(typ string, o *order, previous map[string]any) {
	s.emitLocked(change{
		typ, s.invoiceObject(o), minimalObject{"invoice", o.invoiceID, o.invoiceStatus, ""}, o.keys(), previous,
	})
}

func (s *Server) emitPaymentLocked(typ string, o *order, previous map[string]any) {
	s.emitLocked(change{
		typ, s.paymentObject(o), minimalObject{"invoice_payment", o.paymentID, "confirmed", o.invoiceID}, o.keys(), previous,
	})
}
