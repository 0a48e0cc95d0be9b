package configs

import (
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

const (
	envPrefix    = "GATEWAY_"
	fileSuffix   = "_FILE"
	maxFileBytes = 32 << 10 // of the configuration and of each secret's file; ours are a few kB
	maxListItems = 1000     // of any list
)

// pepayVariables are the names that Pepay's own tools use.
var pepayVariables = map[string]string{
	"PEPAY_API_URL":          "upstream.api_url",
	"PEPAY_WS_URL":           "upstream.ws_url",
	"PEPAY_COMMERCE_API_KEY": "upstream.api_key",
}

// Load returns the configuration from the defaults, then the YAML file at path
// (none when empty), then environ (as of os.Environ), then overrides, which are
// the flags by key path. The later wins. An empty variable counts as unset.
//
// The variable of a.b_c is GATEWAY_A_B_C; lists are separated by commas, lists
// of keys are YAML. A secret may instead be in a file named by GATEWAY_A_B_C_FILE,
// and must not come from a flag. PEPAY_API_URL, PEPAY_WS_URL and
// PEPAY_COMMERCE_API_KEY stand between the file and the GATEWAY_ variables.
//
// The error is Problems with everything that is wrong; the Config is then to be
// thrown away.
func Load(path string, environ []string, overrides map[string]string) (Config, error) {
	c := Default()
	l := newLoader(&c)
	readable := l.file(path)
	l.environment(environ)
	l.flags(overrides)
	c.deriveWSURL()
	if readable { // else all that it should have set would be reported as missing
		l.validate()
	}
	return c, l.problems.orNil()
}

// Set gives one key a value, written as in the environment. It does not
// validate the whole. The error is Problems.
func (c *Config) Set(key, value string) error {
	l := newLoader(c)
	for _, f := range c.fields() {
		if f.key == key {
			l.text(f, key, value)
			return l.problems.orNil()
		}
	}
	l.unknown(showKey(key), key, keysOf(c.fields()))
	return l.problems.orNil()
}

// Validate returns Problems with everything that is wrong with c, or nil.
func (c *Config) Validate() error {
	l := newLoader(c)
	l.validate()
	return l.problems.orNil()
}

// deriveWSURL fills in the stream's URL: Pepay has both on the same host.
func (c *Config) deriveWSURL() {
	if c.Upstream.WSURL != "" {
		return
	}
	if rest, ok := strings.CutPrefix(c.Upstream.APIURL, "http"); ok {
		c.Upstream.WSURL = "ws" + rest
	}
}

// A loader fills a Config and collects what is wrong.
type loader struct {
	config   *Config
	from     map[string]string // where a key got its value; absent for defaults
	failed   map[string]bool   // keys already reported, and not to be validated
	problems Problems
}

func newLoader(c *Config) *loader {
	return &loader{config: c, from: make(map[string]string), failed: make(map[string]bool)}
}

func (l *loader) report(where, format string, args ...any) {
	l.problems = append(l.problems, Problem{where, fmt.Sprintf(format, args...)})
}

// bad reports the value of a key, once.
func (l *loader) bad(key, format string, args ...any) {
	if l.failed[key] {
		return
	}
	l.failed[key] = true
	where := l.whence(key)
	if where == "" || where == key {
		l.report(key, format, args...)
		return
	}
	l.report(where, "%s: %s", key, fmt.Sprintf(format, args...))
}

// whence returns where a key, or else the list or entry that it is part of, got
// its value; nothing for a default.
func (l *loader) whence(key string) string {
	for {
		if where, ok := l.from[key]; ok {
			return where
		}
		i := strings.LastIndexAny(key, ".[")
		if i < 0 {
			return ""
		}
		key = key[:i]
	}
}

func (l *loader) unknown(where, key string, keys []string) {
	l.report(where, "unknown key %s; the nearest valid key is %q", showKey(key), nearest(key, keys))
}

func keysOf(fields []field) []string {
	keys := make([]string, len(fields))
	for i, f := range fields {
		keys[i] = f.key
	}
	return keys
}

// file reads the YAML file. It returns false when that could not be read or
// parsed at all.
func (l *loader) file(path string) bool {
	if path == "" {
		return true
	}
	text, err := readFile(path)
	if err != nil {
		l.report(path, "%v", err)
		return false
	}
	root, line, err := parseYAML(text)
	at := func(line int) string { return path + ":" + strconv.Itoa(line) }
	if err != nil {
		l.report(at(line), "%v", err)
		return false
	}
	switch root.kind {
	case empty:
		return true
	case mapping:
		l.walk("", l.config.fields(), root, at)
		return true
	}
	l.report(at(root.line), "the file must consist of keys and values, such as listen: \":8080\"")
	return false
}

// readFile reads a bounded file. Its errors do not repeat the path.
func readFile(path string) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, bareError(err)
	}
	defer f.Close() // read-only
	text, err := io.ReadAll(io.LimitReader(f, maxFileBytes+1))
	if err != nil {
		return nil, bareError(err)
	}
	if len(text) > maxFileBytes {
		return nil, fmt.Errorf("has more than %d bytes", maxFileBytes)
	}
	return text, nil
}

func bareError(err error) error {
	var pathError *os.PathError
	if errors.As(err, &pathError) {
		return fmt.Errorf("cannot be read: %w", pathError.Err)
	}
	return err
}

// walk assigns the members of a mapping to the fields whose keys start with
// prefix, and goes into sections.
func (l *loader) walk(prefix string, fields []field, n node, at func(line int) string) {
	seen := make(map[string]int)
	for _, m := range n.members {
		key, where := prefix+m.key, at(m.line)
		if first, twice := seen[m.key]; twice {
			l.report(where, "%s is here for the second time, after line %d; keep one", showKey(key), first)
			continue
		}
		seen[m.key] = m.line
		i := slices.IndexFunc(fields, func(f field) bool { return f.key == key })
		section := slices.ContainsFunc(fields, func(f field) bool { return strings.HasPrefix(f.key, key+".") })
		switch {
		case i >= 0 && m.value.kind != empty:
			l.assign(fields[i], where, m.value, at)
		case i >= 0: // "key:" alone leaves the default
		case !section:
			l.unknown(where, key, keysOf(fields))
		case m.value.kind == mapping:
			l.walk(key+".", fields, m.value, at)
		case m.value.kind != empty:
			l.report(where, "%s is a section; write its keys below it, indented", key)
		}
	}
}

// environment takes what the variables say.
func (l *loader) environment(environ []string) {
	vars := make(map[string]string)
	for _, e := range environ {
		name, value, _ := strings.Cut(e, "=")
		vars[name] = value
	}
	fields := l.config.fields()
	for _, name := range slices.Sorted(maps.Keys(pepayVariables)) {
		i := slices.IndexFunc(fields, func(f field) bool { return f.key == pepayVariables[name] })
		if vars[name] != "" {
			l.text(fields[i], name, vars[name])
		}
	}
	known := make(map[string]bool)
	for _, f := range fields {
		known[f.variable()] = true
		known[f.variable()+fileSuffix] = f.secret()
		l.variable(f, vars)
	}
	l.unknownVariables(vars, known)
}

// variable takes one field from its variable, or from the file that one names.
func (l *loader) variable(f field, vars map[string]string) {
	name := f.variable()
	value, path := vars[name], ""
	if f.secret() {
		path = vars[name+fileSuffix]
	}
	switch {
	case value != "" && path != "":
		l.report(name, "is set, and so is %s; keep one", name+fileSuffix)
		l.failed[f.key] = true
	case value != "":
		l.text(f, name, value)
	case path != "":
		text, err := readFile(path)
		value := strings.TrimSpace(string(text))
		if err == nil && value == "" {
			err = errors.New("is empty")
		}
		if err != nil {
			// The path is not shown: some put the secret itself here.
			l.report(name+fileSuffix, "the file that it names %v", err)
			l.failed[f.key] = true
			return
		}
		l.text(f, name+fileSuffix, value)
	}
}

// serviceLink matches the variables that Kubernetes makes for every service in
// the namespace; one for a service named gateway, or gateway-something, is no typo.
var serviceLink = regexp.MustCompile(`^GATEWAY_(.+_)?(SERVICE_HOST|SERVICE_PORT(_.+)?|PORT_[0-9]+_(TCP|UDP|SCTP)(_(PROTO|PORT|ADDR))?)=|` +
	`^GATEWAY_(.+_)?PORT=(tcp|udp|sctp)://`)

func (l *loader) unknownVariables(vars map[string]string, known map[string]bool) {
	valid := slices.Sorted(maps.Keys(known))
	valid = slices.DeleteFunc(valid, func(name string) bool { return !known[name] })
	for _, name := range slices.Sorted(maps.Keys(vars)) {
		if strings.HasPrefix(name, envPrefix) && !known[name] && !serviceLink.MatchString(name+"="+vars[name]) {
			l.report(name, "unknown variable; the nearest valid one is %s", nearest(name, valid))
		}
	}
}

// flags takes the overrides.
func (l *loader) flags(overrides map[string]string) {
	fields := l.config.fields()
	for _, key := range slices.Sorted(maps.Keys(overrides)) {
		where := "flag " + key
		i := slices.IndexFunc(fields, func(f field) bool { return f.key == key })
		switch {
		case i < 0:
			l.unknown(where, key, keysOf(fields))
		case fields[i].secret():
			l.report(where, "a secret on the command line is seen by everybody on the machine; use %s or %s",
				fields[i].variable(), fields[i].variable()+fileSuffix)
		default:
			l.text(fields[i], where, overrides[key])
		}
	}
}
