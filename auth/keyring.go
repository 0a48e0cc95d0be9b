package auth

import (
	"bytes"
	"crypto/ed25519"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/golang-jwt/jwt/v5"
)

const (
	// MinSecretBytes is the least length of an HS256 secret.
	MinSecretBytes = 32
	// MaxTokenBytes bounds a token: it has to fit a URL and a header with room to
	// spare, and bounds the work done for a caller who has proved nothing yet.
	MaxTokenBytes = 4 << 10

	maxKeyIDBytes = 64
	typSuffix     = "+jwt"
)

// A Key signs or verifies tokens. Its algorithm is fixed: a token that names the
// key and another algorithm is refused. Make one with SecretKey or PublicKey;
// the zero Key is refused by NewKeyring.
type Key struct {
	id     string
	method jwt.SigningMethod
	secret []byte            // HS256
	public ed25519.PublicKey // EdDSA
}

// ID is the key's kid.
func (k Key) ID() string { return k.id }

// String keeps the key's bytes out of whatever prints it.
func (k Key) String() string { return "key " + k.id }

// GoString is String.
func (k Key) GoString() string { return k.String() }

// SecretKey returns an HS256 key of at least MinSecretBytes. An empty kid stands
// for one derived from the secret, so that a secret which moves from signing to
// verifying keeps its kid without anybody writing it down.
func SecretKey(kid string, secret []byte) (Key, error) {
	if len(secret) < MinSecretBytes {
		return Key{}, fmt.Errorf("auth: an HS256 secret has at least %d bytes", MinSecretBytes)
	}
	if kid == "" {
		mac := hmac.New(sha256.New, secret)
		mac.Write([]byte("pepay-gateway kid"))
		kid = hex.EncodeToString(mac.Sum(nil)[:8])
	}
	if err := checkKeyID(kid); err != nil {
		return Key{}, err
	}
	return Key{id: kid, method: jwt.SigningMethodHS256, secret: bytes.Clone(secret)}, nil
}

// PublicKey returns an EdDSA (Ed25519) key, which can only verify. The text is a
// PEM block "PUBLIC KEY", or the 32 bytes in base64 or base64url.
func PublicKey(kid, text string) (Key, error) {
	if err := checkKeyID(kid); err != nil {
		return Key{}, err
	}
	public, ok := parsePublic(strings.TrimSpace(text))
	if !ok {
		return Key{}, errors.New("auth: an EdDSA key is an Ed25519 public key: PEM, or its 32 bytes in base64")
	}
	return Key{id: kid, method: jwt.SigningMethodEdDSA, public: public}, nil
}

func checkKeyID(kid string) error {
	if kid == "" || len(kid) > maxKeyIDBytes || !validID(kid) {
		return fmt.Errorf("auth: a kid is 1 to %d printable bytes", maxKeyIDBytes)
	}
	return nil
}

func parsePublic(text string) (ed25519.PublicKey, bool) {
	if block, _ := pem.Decode([]byte(text)); block != nil {
		key, err := x509.ParsePKIXPublicKey(block.Bytes)
		public, ok := key.(ed25519.PublicKey)
		return public, err == nil && ok
	}
	text = strings.NewReplacer("-", "+", "_", "/").Replace(strings.TrimRight(text, "="))
	raw, err := base64.RawStdEncoding.DecodeString(text)
	return raw, err == nil && len(raw) == ed25519.PublicKeySize
}

// A Keyring mints tokens with one key and verifies them with several. To rotate
// without refusing anybody: give every node the new key for verification, then
// make it the signing key and the old one a verify key, and drop that once the
// longest token has expired. A Keyring is immutable and safe for concurrent use.
type Keyring struct {
	signing Key
	keys    map[string]Key // by kid, the signing key among them
	parser  *jwt.Parser
}

// NewKeyring returns a keyring that signs with an HS256 key and verifies with it
// and the further keys. No two may have the same kid.
func NewKeyring(signing Key, verify ...Key) (*Keyring, error) {
	if signing.method != jwt.SigningMethodHS256 {
		return nil, errors.New("auth: the signing key must be an HS256 secret")
	}
	keys := map[string]Key{signing.id: signing}
	for _, k := range verify {
		if k.method == nil {
			return nil, errors.New("auth: empty verify key")
		}
		if _, twice := keys[k.id]; twice {
			return nil, fmt.Errorf("auth: two keys have the kid %q", k.id)
		}
		keys[k.id] = k
	}
	methods := []string{jwt.SigningMethodHS256.Alg(), jwt.SigningMethodEdDSA.Alg()}
	return &Keyring{
		signing: signing,
		keys:    keys,
		// The claims are validated here: the library knows neither our caps nor
		// duplicates, and takes numbers that are not whole.
		parser: jwt.NewParser(jwt.WithValidMethods(methods), jwt.WithStrictDecoding(), jwt.WithoutClaimsValidation()),
	}, nil
}

// Mint returns a signed token for c. Claims that Verify would refuse, or that
// make the token exceed MaxTokenBytes, are ErrInvalidClaims.
func (r *Keyring) Mint(c Claims) (string, error) {
	c.Scope = ScopeCommerce
	if c.ID == "" {
		c.ID = rand.Text()
	}
	c.IssuedAt, c.ExpiresAt = c.IssuedAt.Truncate(time.Second), c.ExpiresAt.Truncate(time.Second)
	if c.SessionExpiresAt.IsZero() {
		c.SessionExpiresAt = c.ExpiresAt
	}
	c.SessionExpiresAt = c.SessionExpiresAt.Truncate(time.Second)
	if sec := c.IssuedAt.Unix(); sec <= 0 || sec > maxTime-int64(MaxSession/time.Second) {
		return "", fmt.Errorf("%w: iat is not a time", ErrInvalidClaims)
	}
	if err := c.check(); err != nil {
		return "", fmt.Errorf("%w: %w", ErrInvalidClaims, err)
	}
	t := jwt.NewWithClaims(r.signing.method, payload(c))
	t.Header["typ"] = string(c.Kind) + typSuffix
	t.Header["kid"] = r.signing.id
	token, err := t.SignedString(r.signing.secret)
	if err != nil {
		return "", fmt.Errorf("auth: mint: %w", err)
	}
	if len(token) > MaxTokenBytes {
		return "", fmt.Errorf("%w: the token would exceed %d bytes; name fewer orders", ErrInvalidClaims, MaxTokenBytes)
	}
	return token, nil
}

func payload(c Claims) jwt.MapClaims {
	m := jwt.MapClaims{
		"iss": Issuer, "aud": Issuer, "jti": c.ID, "scope": c.Scope,
		"iat": c.IssuedAt.Unix(), "exp": c.ExpiresAt.Unix(), "session_exp": c.SessionExpiresAt.Unix(),
	}
	if c.Account {
		m["account"] = true
	}
	if c.Customer != "" {
		m["customer_id"] = c.Customer
	}
	switch len(c.Orders) {
	case 0:
	case 1:
		m["order_id"] = c.Orders[0]
	default:
		m["order_id"] = c.Orders
	}
	return m
}

// Verify returns the claims of a token that is good at now. Every other one is
// ErrInvalidToken; one that merely expired is ErrExpired too.
func (r *Keyring) Verify(token string, now time.Time) (Claims, error) {
	c, err := r.verify(token, now)
	if err == nil || errors.Is(err, ErrInvalidToken) {
		return c, err
	}
	return Claims{}, fmt.Errorf("%w: %w", ErrInvalidToken, err)
}

func (r *Keyring) verify(token string, now time.Time) (Claims, error) {
	kind, key, err := r.readHeader(token)
	if err != nil {
		return Claims{}, err
	}
	var signed rawClaims
	if _, err := r.parser.ParseWithClaims(token, &signed, key.forToken); err != nil {
		return Claims{}, errors.New("bad signature") // the library's text may quote the token
	}
	c, notBefore, err := parseClaims(kind, signed.payload)
	switch {
	case err != nil:
		return Claims{}, err
	case c.IssuedAt.After(now.Add(leeway)):
		return Claims{}, errors.New("issued in the future")
	case notBefore.After(now.Add(leeway)):
		return Claims{}, errors.New("not valid yet")
	case !now.Before(c.ExpiresAt):
		return Claims{}, ErrExpired
	}
	return c, nil
}

// readHeader checks everything that needs no signature, and finds the key.
func (r *Keyring) readHeader(token string) (Kind, Key, error) {
	if len(token) > MaxTokenBytes {
		return "", Key{}, errors.New("too long")
	}
	if strings.Count(token, ".") != 2 {
		return "", Key{}, errors.New("not three parts")
	}
	// base64 decoders skip line breaks, which would give one token many spellings.
	if strings.ContainsAny(token, "\r\n") {
		return "", Key{}, errors.New("malformed base64")
	}
	part, _, _ := strings.Cut(token, ".")
	raw, err := base64.RawURLEncoding.Strict().DecodeString(part)
	if err != nil {
		return "", Key{}, errors.New("malformed base64")
	}
	header, err := parseObject(raw)
	if err != nil {
		return "", Key{}, err
	}
	// "crit" lists extensions that must be understood; there are none here.
	if _, crit := header.member("crit"); crit {
		return "", Key{}, errors.New("crit header")
	}
	typ, _ := header.member("typ")
	kind, typed := kindOf(text(typ))
	if !typed {
		return "", Key{}, errors.New("wrong typ")
	}
	kid, _ := header.member("kid")
	key, ok := r.keys[text(kid)]
	if !ok {
		return "", Key{}, errors.New("unknown kid")
	}
	if alg, _ := header.member("alg"); text(alg) != key.method.Alg() {
		return "", Key{}, errors.New("wrong alg")
	}
	return kind, key, nil
}

// kindOf returns the kind that a typ names.
func kindOf(typ string) (Kind, bool) {
	for _, kind := range []Kind{KindStream, KindSSE} {
		if strings.TrimSuffix(typ, typSuffix) == string(kind) && strings.HasSuffix(typ, typSuffix) {
			return kind, true
		}
	}
	return "", false
}

// forToken is the parser's question which key to use. The algorithm is compared
// once more, because the parser has decoded the header for itself.
func (k Key) forToken(t *jwt.Token) (any, error) {
	if t.Method.Alg() != k.method.Alg() {
		return nil, errors.New("wrong alg")
	}
	if k.public != nil {
		return k.public, nil
	}
	return k.secret, nil
}

// rawClaims keeps the payload as it was signed; parseClaims reads it.
type rawClaims struct {
	jwt.RegisteredClaims // only to be a jwt.Claims
	payload              []byte
}

// UnmarshalJSON keeps a copy of raw.
func (c *rawClaims) UnmarshalJSON(raw []byte) error {
	c.payload = bytes.Clone(raw)
	return nil
}

var _ json.Unmarshaler = (*rawClaims)(nil)
