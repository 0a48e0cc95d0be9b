// Package auth says who may do what: it mints and verifies gateway tokens, and
// looks up the API keys of the merchant's own servers.
//
// A gateway token is a JWT. Merchants may sign the same claims themselves, with
// a key that the gateway was given for verification:
//
//		header   {"alg":"HS256","kid":"shop","typ":"gw+jwt"}
//		payload  {"iss":"pepay-gateway","aud":"pepay-gateway","scope":"commerce",
//		          "iat":1700000000,"exp":1700000060,"session_exp":1700003600,
//		          "customer_id":"cust_1","order_id":["order_1","order_2"]}
//
//	  - alg is the one its key is configured with: HS256 or EdDSA (Ed25519).
//	  - kid names the key and is required.
//	  - typ is gw+jwt, or gw-sse+jwt for a token that a native EventSource repeats.
//	  - iss, aud, scope, iat and exp are required; times are whole unix seconds.
//	  - exp - iat is at most 1 hour for the whole account, 24 hours for a customer
//	    or orders. session_exp (default exp) is when a stream the token opened must
//	    end: not before exp, at most 24 hours after iat.
//	  - customer_id is a string, order_id a string or a list of at most 50. With
//	    neither, "account":true is required, and only then allowed.
//	  - jti and nbf are optional. Claims of other names are ignored.
//
// The package knows neither HTTP nor what a scope lets through; it answers with
// claims, and its errors never contain a token or a key.
package auth

import (
	"errors"
	"fmt"
)

// Errors that callers branch on.
var (
	// ErrInvalidToken says that a token is refused. Clients get one fixed text
	// for all reasons; the wrapped reason is a constant phrase for logs.
	ErrInvalidToken = errors.New("auth: invalid token")
	// ErrExpired is the ErrInvalidToken of a token that was good until it expired.
	ErrExpired = fmt.Errorf("%w: expired", ErrInvalidToken)
	// ErrInvalidClaims says that Mint was asked for a token that Verify would
	// refuse. Its text says why, and contains none of the claims.
	ErrInvalidClaims = errors.New("auth: invalid claims")
)
