package configs

import (
	"errors"
	"fmt"

	"github.com/goccy/go-yaml"
	"github.com/goccy/go-yaml/ast"
	"github.com/goccy/go-yaml/parser"
)

// A node is a piece of YAML, or of text that came from elsewhere. It keeps the
// scalars as they were written; assign knows what they should be.
type node struct {
	kind    nodeKind
	line    int // 0 for text from elsewhere
	text    string
	items   []node   // of a list
	members []member // of a mapping, duplicates included
}

type member struct {
	key   string
	line  int
	value node
}

type nodeKind int

const (
	empty nodeKind = iota // null, or nothing at all
	scalar
	list
	mapping
	unsupported // anchors, aliases and tags: a configuration says what it means in place
)

// maxBrackets bounds nesting before the parser sees it: its time and memory grow
// with the square of the depth. Ours needs 3.
const maxBrackets = 32

// parseYAML reads one document. Its errors are syntax errors, with the line and
// without any of the text, which may be a secret.
func parseYAML(text []byte) (node, int, error) {
	if len(text) > maxFileBytes {
		return node{}, 1, fmt.Errorf("has more than %d bytes", maxFileBytes)
	}
	if line := tooDeep(text); line > 0 {
		return node{}, line, fmt.Errorf("this is not YAML: more than %d open brackets", maxBrackets)
	}
	file, err := parser.ParseBytes(text, 0, parser.AllowDuplicateMapKey())
	if err != nil {
		var syntax yaml.Error
		if errors.As(err, &syntax) && syntax.GetToken() != nil {
			return node{}, syntax.GetToken().Position.Line, errors.New("this is not YAML: " + syntax.GetMessage())
		}
		return node{}, 1, errors.New("this is not YAML")
	}
	if len(file.Docs) > 1 {
		return node{}, 1, errors.New("there is more than one document; keep one, without --- between its parts")
	}
	if len(file.Docs) == 0 {
		return node{}, 0, nil
	}
	return toNode(file.Docs[0].Body), 0, nil
}

// tooDeep returns the line on which too many brackets are open, else 0. It does
// not know of quotes; nobody has so many open ones in a text either.
func tooDeep(text []byte) int {
	line, open := 1, 0
	for _, b := range text {
		switch b {
		case '\n':
			line++
		case '[', '{':
			open++
		case ']', '}':
			open = max(open-1, 0)
		}
		if open > maxBrackets {
			return line
		}
	}
	return 0
}

func toNode(n ast.Node) node {
	if n == nil {
		return node{}
	}
	line := lineOf(n)
	switch n := n.(type) {
	case *ast.NullNode, *ast.CommentGroupNode:
		return node{line: line}
	case *ast.StringNode:
		return node{kind: scalar, line: line, text: n.Value}
	case *ast.LiteralNode:
		return node{kind: scalar, line: line, text: n.Value.Value}
	case *ast.IntegerNode, *ast.FloatNode, *ast.BoolNode, *ast.InfinityNode, *ast.NanNode:
		return node{kind: scalar, line: line, text: n.GetToken().Value}
	case *ast.SequenceNode:
		items := make([]node, len(n.Values))
		for i, v := range n.Values {
			items[i] = toNode(v)
		}
		return node{kind: list, line: line, items: items}
	case *ast.MappingNode:
		members := make([]member, len(n.Values))
		for i, v := range n.Values {
			members[i] = toMember(v)
		}
		return node{kind: mapping, line: line, members: members}
	case *ast.MappingValueNode:
		return node{kind: mapping, line: line, members: []member{toMember(n)}}
	}
	return node{kind: unsupported, line: line}
}

func toMember(n *ast.MappingValueNode) member {
	m := member{line: lineOf(n.Key), value: toNode(n.Value)}
	if t := n.Key.GetToken(); t != nil {
		m.key = t.Value
	}
	return m
}

func lineOf(n ast.Node) int {
	if t := n.GetToken(); t != nil && t.Position != nil {
		return t.Position.Line
	}
	return 0
}
