package configs

import (
	"fmt"
	"io"
	"net/netip"
	"strconv"
	"strings"
	"time"
)

// Print writes the configuration in force as YAML, defaults included, and every
// secret that is set as "[redacted]".
func (c Config) Print(w io.Writer) error {
	var b strings.Builder
	printFields(&b, c.fields())
	_, err := io.WriteString(w, b.String())
	return err
}

func printFields(b *strings.Builder, fields []field) {
	section := ""
	for _, f := range fields {
		head, name, nested := strings.Cut(f.key, ".")
		if !nested {
			fmt.Fprintf(b, "%s: %s\n", head, flow(f.value))
			continue
		}
		if head != section {
			fmt.Fprintf(b, "%s:\n", head)
			section = head
		}
		fmt.Fprintf(b, "  %s: %s\n", name, flow(f.value))
	}
}

// flow returns a value as YAML on one line.
func flow(value any) string {
	switch p := value.(type) {
	case *string:
		return strconv.Quote(*p)
	case *Secret:
		if *p == "" {
			return `""`
		}
		return strconv.Quote(p.String())
	case *RedisURL:
		if *p == "" {
			return `""`
		}
		return strconv.Quote(p.String())
	case *bool:
		return strconv.FormatBool(*p)
	case *int:
		return strconv.Itoa(*p)
	case *time.Duration:
		return p.String()
	case *[]string:
		return flowList(*p, func(s *string) string { return strconv.Quote(*s) })
	case *[]netip.Prefix:
		return flowList(*p, func(x *netip.Prefix) string { return strconv.Quote(x.String()) })
	case *[]APIKey:
		return flowList(*p, func(k *APIKey) string { return flowFields(k.fields("")) })
	case *[]VerifyKey:
		return flowList(*p, func(k *VerifyKey) string { return flowFields(k.fields("")) })
	}
	return redacted
}

func flowList[T any](list []T, text func(*T) string) string {
	parts := make([]string, len(list))
	for i := range list {
		parts[i] = text(&list[i])
	}
	return "[" + strings.Join(parts, ", ") + "]"
}

func flowFields(fields []field) string {
	parts := make([]string, 0, len(fields))
	for _, f := range fields {
		if text := flow(f.value); text != `""` {
			parts = append(parts, f.key+": "+text)
		}
	}
	return "{" + strings.Join(parts, ", ") + "}"
}
