package main

import (
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"pepay-gateway/auth"
	"pepay-gateway/configs"
)

const maxTokenInput = 64 << 10

func tokenCommand(env environment) *cobra.Command {
	cmd := &cobra.Command{Use: "token", Short: "Mint or check a gateway token by hand"}
	cmd.AddCommand(tokenMintCommand(env), tokenCheckCommand(env))
	return cmd
}

func tokenMintCommand(env environment) *cobra.Command {
	var file string
	claims := auth.Claims{Kind: auth.KindStream}
	var ttl, session time.Duration
	var sse bool
	cmd := &cobra.Command{
		Use:   "mint",
		Short: "Mint a token with the configured secret",
		Long: `Prints a token for a customer, for orders, or for the whole account. It is signed with
auth.token_secret and valid on every node that has the same secret. Browsers should get
theirs from POST /api/v1/ws/token; this is for trying things out.`,
		Example: "  pepay-gateway token mint -c gateway.yaml --customer cust_1\n  pepay-gateway token mint -c gateway.yaml --order 6f1c2d3e --ttl 10m",
		Args:    cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error {
			keyring, err := loadKeyring(file, env)
			if err != nil {
				return err
			}
			now := time.Now()
			claims.ID, claims.Scope = rand.Text(), auth.ScopeCommerce
			claims.IssuedAt, claims.ExpiresAt, claims.SessionExpiresAt = now, now.Add(ttl), now.Add(max(ttl, session))
			if sse {
				claims.Kind, claims.ExpiresAt = auth.KindSSE, claims.SessionExpiresAt
			}
			token, err := keyring.Mint(claims)
			if errors.Is(err, auth.ErrInvalidClaims) {
				return fmt.Errorf("%w: %w", errUsage, err)
			}
			if err != nil {
				return err
			}
			_, err = fmt.Fprintln(env.stdout, token)
			return err
		},
	}
	f := cmd.Flags()
	f.StringVarP(&file, "config", "c", "", "configuration file")
	f.StringVar(&claims.Customer, "customer", "", "only this customer's events")
	f.StringSliceVar(&claims.Orders, "order", nil, "only this order's events; may be repeated")
	f.BoolVar(&claims.Account, "account", false, "the whole account, for dashboards; never for a browser of a shopper")
	f.DurationVar(&ttl, "ttl", time.Minute, "how long the token opens streams")
	f.DurationVar(&session, "session", time.Hour, "how long a stream it opened may live")
	f.BoolVar(&sse, "sse", false, "a token for an EventSource URL: it opens SSE until the session ends")
	return cmd
}

func tokenCheckCommand(env environment) *cobra.Command {
	var file string
	cmd := &cobra.Command{
		Use:   "check [TOKEN]",
		Short: "Verify a token and print its claims",
		Long: `Verifies a token with the configured keys and prints what it allows. Without an argument
the token is read from standard input, which keeps it out of the shell's history.`,
		Args: cobra.MaximumNArgs(1),
		RunE: func(_ *cobra.Command, args []string) error {
			keyring, err := loadKeyring(file, env)
			if err != nil {
				return err
			}
			token := strings.Join(args, "")
			if token == "" {
				b, err := io.ReadAll(io.LimitReader(env.stdin, maxTokenInput))
				if err != nil {
					return err
				}
				token = strings.TrimSpace(string(b))
			}
			c, err := keyring.Verify(token, time.Now())
			if err != nil {
				return err
			}
			enc := json.NewEncoder(env.stdout)
			enc.SetIndent("", "  ")
			return enc.Encode(map[string]any{
				"kind": string(c.Kind), "account": c.Account, "customer_id": c.Customer, "order_id": c.Orders,
				"issued_at": c.IssuedAt, "expires_at": c.ExpiresAt, "session_expires_at": c.SessionExpiresAt,
			})
		},
	}
	cmd.Flags().StringVarP(&file, "config", "c", "", "configuration file")
	return cmd
}

// loadKeyring needs nothing of the configuration but the keys, so other
// problems in it do not matter here.
func loadKeyring(file string, env environment) (*auth.Keyring, error) {
	cfg, err := configs.Load(file, env.vars, nil)
	if cfg.Auth.TokenSecret == "" {
		if err != nil {
			return nil, err
		}
		return nil, fmt.Errorf("%w: auth.token_secret is not set; give -c FILE or GATEWAY_AUTH_TOKEN_SECRET", errUsage)
	}
	return keyringOf(cfg.Auth)
}

func configCommand(env environment) *cobra.Command {
	cmd := &cobra.Command{Use: "config", Short: "Check or print the configuration"}
	var file string
	load := func() (configs.Config, error) { return configs.Load(file, env.vars, nil) }
	check := &cobra.Command{
		Use:   "check",
		Short: "Report every problem of the configuration",
		Long:  "Reports every problem of settings at once, then those of URLs and keys, each with its place and what to do, and exits 2 if there is one.",
		Args:  cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error {
			cfg, err := load()
			if err != nil {
				return err
			}
			if _, err := newNode(cfg, nil, env.logger("error")); err != nil {
				return err
			}
			_, err = fmt.Fprintln(env.stdout, "The configuration is good.")
			return err
		},
	}
	print := &cobra.Command{
		Use:   "print",
		Short: "Print what is in force, without secrets",
		Args:  cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error {
			cfg, err := load()
			if err != nil {
				return err
			}
			return cfg.Print(env.stdout)
		},
	}
	for _, c := range []*cobra.Command{check, print} {
		c.Flags().StringVarP(&file, "config", "c", "", "configuration file")
		cmd.AddCommand(c)
	}
	return cmd
}
