package tabular

import (
	"bufio"
	"bytes"
	"errors"
	"io"
	"strconv"
	"unicode/utf8"

	"github.com/musterhq/muster/campaign"
)

type xmlKind int

const (
	xmlStart xmlKind = iota
	xmlEnd
	xmlText
)

// xmlScanner reads the XML of a workbook as a stream. It knows neither document types
// nor entities of a document's own, so there is nothing to expand and nothing to fetch:
// a document that has them is refused.
type xmlScanner struct {
	in    *bufio.Reader
	name  []byte // of the element, without its prefix
	attrs []byte // of a start, as they are written
	text  []byte // resolved
	tag   []byte
	empty bool   // an end follows the start that was told
	open  []byte // the names of the elements that are open, one after the other
	ends  []int  // of each name in open
	long  int    // text beyond it is cut
}

func newXMLScanner(in io.Reader, longest int) *xmlScanner {
	return &xmlScanner{in: bufio.NewReaderSize(in, 64<<10), long: longest + 1}
}

// longestTag is what a tag may have; a cell's has some dozens of bytes.
const longestTag = 64 << 10

var errXML = campaign.Errorf(campaign.CodeInvalidFile, "the workbook is damaged; open it and save it again")

// next reads on. It returns io.EOF after the root's end, and CodeInvalidFile when the
// document ends before.
func (s *xmlScanner) next() (xmlKind, error) {
	if s.empty {
		s.empty = false
		return xmlEnd, s.pop(s.name)
	}
	for {
		c, err := s.in.ReadByte()
		switch {
		case errors.Is(err, io.EOF) && len(s.ends) == 0 && s.name != nil:
			return 0, io.EOF
		case err != nil:
			return 0, damaged(err)
		case c != '<':
			if err := s.in.UnreadByte(); err != nil {
				return 0, err
			}
			if err := s.readText(); err != nil {
				return 0, err
			}
			return xmlText, nil
		}
		if err := s.readTag(); err != nil {
			return 0, err
		}
		switch s.tag[0] {
		case '?':
			if err := s.declaration(); err != nil {
				return 0, err
			}
		case '!':
			isText, err := s.readSpecial()
			if err != nil {
				return 0, err
			}
			if isText {
				return xmlText, nil
			}
		case '/':
			s.name = local(bytes.TrimRight(s.tag[1:], " \t\r\n"))
			return xmlEnd, s.pop(s.name)
		default:
			body := s.tag
			if n := len(body) - 1; body[n] == '/' {
				s.empty, body = true, body[:n]
			}
			s.name, s.attrs = body, nil
			for i, c := range body {
				if c <= ' ' {
					s.name, s.attrs = body[:i], body[i:]
					break
				}
			}
			s.name = local(s.name)
			return xmlStart, s.push(s.name)
		}
	}
}

// deepest is how deep elements may be nested; a cell's are at 7.
const deepest = 100

func (s *xmlScanner) push(name []byte) error {
	if len(s.ends) == deepest {
		return errXML
	}
	s.open = append(s.open, name...)
	s.ends = append(s.ends, len(s.open))
	return nil
}

// pop closes the innermost element, which must have that name.
func (s *xmlScanner) pop(name []byte) error {
	last := len(s.ends) - 1
	if last < 0 {
		return errXML
	}
	begin := 0
	if last > 0 {
		begin = s.ends[last-1]
	}
	if !bytes.Equal(s.open[begin:], name) {
		return errXML
	}
	s.open, s.ends = s.open[:begin], s.ends[:last]
	return nil
}

func local(name []byte) []byte {
	return name[bytes.IndexByte(name, ':')+1:]
}

// readTag reads to the end of a tag. A > between quotes is none.
func (s *xmlScanner) readTag() error {
	s.tag = s.tag[:0]
	for {
		part, err := s.in.ReadSlice('>')
		if errors.Is(err, bufio.ErrBufferFull) || len(s.tag)+len(part) > longestTag {
			return errXML
		}
		if err != nil {
			return damaged(err)
		}
		s.tag = append(s.tag, part...)
		if s.tag[0] == '!' || s.tag[0] == '?' || !insideQuotes(s.tag) {
			break
		}
	}
	if s.tag = s.tag[:len(s.tag)-1]; len(s.tag) == 0 {
		return errXML
	}
	return nil
}

func insideQuotes(tag []byte) bool {
	var quote byte
	for _, c := range tag {
		switch {
		case quote == 0 && (c == '"' || c == '\''):
			quote = c
		case c == quote:
			quote = 0
		}
	}
	return quote != 0
}

// declaration looks at the encoding: all programs write UTF-8.
func (s *xmlScanner) declaration() error {
	if !bytes.HasPrefix(s.tag, []byte("?xml ")) {
		return nil
	}
	if e, ok := attr(bytes.TrimSuffix(s.tag[4:], []byte("?")), "encoding"); ok && !bytes.EqualFold(e, []byte("utf-8")) {
		return campaign.Errorf(campaign.CodeEncodingUnsupported, "the workbook is written in %q; save it again with a current program", e)
	}
	return nil
}

// readSpecial passes a comment, reads CDATA, and refuses a document type.
func (s *xmlScanner) readSpecial() (isText bool, err error) {
	comment := bytes.HasPrefix(s.tag, []byte("!--"))
	cdata := bytes.HasPrefix(s.tag, []byte("![CDATA["))
	if !comment && !cdata {
		return false, campaign.Errorf(campaign.CodeArchiveRejected, "the workbook declares a document type, which no spreadsheet program does; save it again with a current one")
	}
	end := []byte("]]")
	if comment {
		end = []byte("--")
	}
	s.text = append(s.text[:0], s.tag...)
	for !bytes.HasSuffix(s.text, end) {
		s.text = append(s.text, '>')
		part, err := s.in.ReadSlice('>')
		if err != nil && !errors.Is(err, bufio.ErrBufferFull) {
			return false, damaged(err)
		}
		s.text = append(s.text, bytes.TrimSuffix(part, []byte(">"))...)
		if errors.Is(err, bufio.ErrBufferFull) || len(s.text) > s.long+longestTag {
			return false, errXML
		}
	}
	if cdata {
		s.text = s.text[len("![CDATA[") : len(s.text)-len(end)]
	}
	return cdata, nil
}

// readText reads up to the next tag and resolves the references.
func (s *xmlScanner) readText() error {
	s.text = s.text[:0]
	for {
		part, err := s.in.ReadSlice('<')
		if err == nil {
			part = part[:len(part)-1]
		}
		if len(s.text) <= s.long {
			s.text = append(s.text, part...)
		}
		switch {
		case errors.Is(err, bufio.ErrBufferFull):
			continue
		case errors.Is(err, io.EOF) && len(s.ends) == 0:
		case err != nil:
			return damaged(err)
		default:
			if err := s.in.UnreadByte(); err != nil {
				return err
			}
		}
		break
	}
	if len(s.text) > s.long { // will be refused as too long
		s.text = s.text[:s.long]
		return nil
	}
	resolved, ok := resolve(s.text)
	if !ok {
		return errXML
	}
	s.text = resolved
	return nil
}

// resolve replaces character references in place.
func resolve(text []byte) ([]byte, bool) {
	first := bytes.IndexByte(text, '&')
	if first < 0 {
		return text, true
	}
	out := text[:first]
	for rest := text[first:]; len(rest) > 0; {
		if rest[0] != '&' {
			n := bytes.IndexByte(rest, '&')
			if n < 0 {
				n = len(rest)
			}
			out = append(out, rest[:n]...)
			rest = rest[n:]
			continue
		}
		end := bytes.IndexByte(rest[:min(len(rest), 12)], ';')
		if end < 0 {
			return nil, false
		}
		r := reference(rest[1:end])
		if r == 0 {
			return nil, false
		}
		out = utf8.AppendRune(out, r) // never longer than the reference
		rest = rest[end+1:]
	}
	return out, true
}

// reference returns the character that name stands for, 0 when none.
func reference(name []byte) rune {
	switch string(name) {
	case "lt":
		return '<'
	case "gt":
		return '>'
	case "amp":
		return '&'
	case "quot":
		return '"'
	case "apos":
		return '\''
	}
	if len(name) < 2 || name[0] != '#' {
		return 0
	}
	digits, base := string(name[1:]), 10
	if digits[0] == 'x' {
		digits, base = digits[1:], 16
	}
	n, err := strconv.ParseUint(digits, base, 21)
	if err != nil || !utf8.ValidRune(rune(n)) {
		return 0
	}
	return rune(n)
}

// attr finds an attribute by its name without prefix. The value is as it is written.
func attr(attrs []byte, name string) (value []byte, ok bool) {
	for {
		i := bytes.IndexByte(attrs, '=')
		if i < 0 {
			return nil, false
		}
		key := local(bytes.TrimSpace(attrs[:i]))
		rest := bytes.TrimLeft(attrs[i+1:], " \t\r\n")
		if len(rest) == 0 || rest[0] != '"' && rest[0] != '\'' {
			return nil, false
		}
		end := bytes.IndexByte(rest[1:], rest[0])
		if end < 0 {
			return nil, false
		}
		if string(key) == name {
			return rest[1 : 1+end], true
		}
		attrs = rest[end+2:]
	}
}

// attrText is attr with references resolved, "" when there is none.
func (s *xmlScanner) attrText(name string) string {
	value, _ := attr(s.attrs, name)
	resolved, _ := resolve(bytes.Clone(value))
	return string(resolved)
}
