package redisbus

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"net/url"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/redis/go-redis/v9/maintnotifications"
)

// Time limits of one Redis command. Well under a third of the shortest useful
// lease, so that a slow answer is noticed before the lease is lost.
const (
	dialTimeout    = 2 * time.Second
	commandTimeout = 2 * time.Second
	// maxIdle is how long a pooled connection is trusted: the library cannot look
	// whether one of ours has been closed meanwhile, as by a Redis that restarted.
	maxIdle = 5 * time.Second
)

// A target is a parsed redis.url.
type target struct {
	options *redis.UniversalOptions
	cluster bool
}

// parseURL reads redis.url. The forms are
//
//	redis://[user:pass@]host:6379[/db]
//	redis+sentinel://[user:pass@]host:26379,host:26379/mastername[/db]
//	redis+cluster://[user:pass@]host:7000,host:7001
//
// each with rediss… for TLS, and the optional query ca_file=PATH with TLS and, for
// Sentinel, sentinel_password=…. Ports may be left out. Errors never contain the URL.
func parseURL(raw string) (target, error) {
	if raw == "" {
		return target{}, errors.New("redisbus: redis.url is empty; an example is redis://127.0.0.1:6379/0")
	}
	scheme, rest, ok := strings.Cut(raw, "://")
	if !ok {
		return target{}, errors.New("redisbus: redis.url has no scheme; an example is redis://127.0.0.1:6379/0")
	}
	// Several hosts are no valid URL authority; cut them out before net/url looks.
	authority, path, _ := strings.Cut(rest, "/")
	if at := strings.IndexByte(authority, '?'); at >= 0 {
		authority, path = authority[:at], authority[at:]
	}
	userinfo, hosts := "", authority
	if at := strings.LastIndexByte(authority, '@'); at >= 0 {
		userinfo, hosts = authority[:at+1], authority[at+1:]
	}
	u, err := url.Parse("redis://" + userinfo + "host/" + path)
	if err != nil {
		return target{}, errors.New("redisbus: redis.url cannot be parsed; " + percentEncode)
	}
	t := target{options: baseOptions()}
	t.options.Username = u.User.Username()
	t.options.Password, _ = u.User.Password()
	sentinel, secure := strings.HasSuffix(scheme, "+sentinel"), strings.HasPrefix(scheme, "rediss")
	for _, h := range strings.Split(hosts, ",") {
		addr, err := address(h, sentinel)
		if err != nil {
			return target{}, err
		}
		t.options.Addrs = append(t.options.Addrs, addr)
	}
	for name := range u.Query() {
		if known := name == "ca_file" || name == "sentinel_password" && sentinel; !known {
			return target{}, errors.New("redisbus: redis.url: behind the ? may stand ca_file and, for Sentinel, sentinel_password; " + percentEncode)
		}
	}
	caFile := u.Query().Get("ca_file")
	if secure {
		if t.options.TLSConfig, err = tlsConfig(caFile); err != nil {
			return target{}, err
		}
	} else if caFile != "" {
		return target{}, errors.New("redisbus: redis.url: ca_file is for TLS, which rediss:// asks for")
	}
	return t.finish(scheme, u)
}

const percentEncode = "percent-encode special characters in the password"

// address checks a host, and adds the usual port where there is none.
func address(host string, sentinel bool) (string, error) {
	port := "6379"
	if sentinel {
		port = "26379"
	}
	if h, p, err := net.SplitHostPort(host); err == nil {
		host, port = h, p
	} else {
		host = strings.TrimSuffix(strings.TrimPrefix(host, "["), "]")
	}
	if host == "" {
		return "", errors.New("redisbus: redis.url names no host")
	}
	if n, err := strconv.ParseUint(port, 10, 16); err != nil || n == 0 || strings.ContainsAny(host, " []") {
		return "", errors.New("redisbus: redis.url: a host is as in example.com:6379 or [::1]:6379; " + percentEncode)
	}
	return net.JoinHostPort(host, port), nil
}

func (t target) finish(scheme string, u *url.URL) (target, error) {
	parts := strings.Split(strings.Trim(u.Path, "/"), "/")
	db := parts[0]
	switch strings.Replace(scheme, "rediss", "redis", 1) {
	case "redis":
		if len(t.options.Addrs) > 1 {
			return target{}, errors.New("redisbus: redis.url: several hosts need redis+sentinel:// or redis+cluster://")
		}
	case "redis+sentinel":
		if t.options.MasterName = parts[0]; t.options.MasterName == "" {
			return target{}, errors.New("redisbus: redis.url: redis+sentinel:// needs the master's name as path, as in redis+sentinel://host:26379/mymaster")
		}
		t.options.SentinelPassword = u.Query().Get("sentinel_password")
		db = ""
		if len(parts) > 1 {
			db = parts[1]
		}
	case "redis+cluster":
		t.cluster, t.options.IsClusterMode = true, true
		if db != "" && db != "0" {
			return target{}, errors.New("redisbus: redis.url: a cluster has only database 0")
		}
	default:
		return target{}, fmt.Errorf("redisbus: redis.url: unknown scheme %q; use redis, rediss, redis+sentinel or redis+cluster", scheme)
	}
	if db != "" {
		n, err := strconv.Atoi(db)
		if err != nil || n < 0 {
			return target{}, errors.New("redisbus: redis.url: the database is a number, as in redis://host:6379/0; " + percentEncode)
		}
		t.options.DB = n
	}
	return t, nil
}

// baseOptions are the settings that the protocol relies on: no retries by the
// library (a write is repeated by us, with the same bytes), deadlines that are
// kept, and no handshake commands that older servers refuse.
func baseOptions() *redis.UniversalOptions {
	return &redis.UniversalOptions{
		MaxRetries:               -1,
		DialerRetries:            1,
		DialTimeout:              dialTimeout,
		ReadTimeout:              commandTimeout,
		WriteTimeout:             commandTimeout,
		PoolTimeout:              commandTimeout,
		ContextTimeoutEnabled:    true,
		DisableIdentity:          true,
		MaintNotificationsConfig: maintOff(),
		PipelinePoolSize:         -1,
		ConnMaxIdleTime:          maxIdle,
		PoolSize:                 16,
	}
}

func tlsConfig(caFile string) (*tls.Config, error) {
	c := &tls.Config{MinVersion: tls.VersionTLS12}
	if caFile == "" {
		return c, nil
	}
	pem, err := os.ReadFile(caFile)
	if err != nil {
		return nil, fmt.Errorf("redisbus: redis.url: ca_file: %w", err)
	}
	c.RootCAs = x509.NewCertPool()
	if !c.RootCAs.AppendCertsFromPEM(pem) {
		return nil, errors.New("redisbus: redis.url: ca_file holds no certificate")
	}
	return c, nil
}

func maintOff() *maintnotifications.Config {
	return &maintnotifications.Config{Mode: maintnotifications.ModeDisabled}
}
