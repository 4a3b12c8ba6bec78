package tabular

import (
	"archive/zip"
	"errors"
	"io"
	"path"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"

	"github.com/musterhq/muster/campaign"
)

// What a workbook may have besides its rows.
const (
	mostEntries   = 10_000
	mostDirectory = 4 << 20 // bytes read to list the entries
	mostStyles    = 64 << 10
	mostSheets    = 1_000
	lastRow       = 1 << 20
	lastColumn    = 1 << 14
)

// metered counts what is read of a file, and can forbid more.
type metered struct {
	src  io.ReaderAt
	n    atomic.Int64
	most int64
}

var errMetered = campaign.Errorf(campaign.CodeArchiveRejected, "the archive lists too many files for a workbook")

func (m *metered) ReadAt(p []byte, at int64) (int, error) {
	if m.n.Add(int64(len(p))) > m.most && m.most > 0 {
		return 0, errMetered
	}
	return m.src.ReadAt(p, at)
}

// workbook is an opened XLSX file.
type workbook struct {
	meter  *metered
	size   int64
	parts  map[string]*zip.File
	limits Limits
	sheet  *zip.File
	texts  texts
	styles []style
	since  int // the year of day 0: 1900 or 1904
	width  int // columns; 0 while not known
}

func openWorkbook(src io.ReaderAt, size int64, options Options, limits Limits) (found, table, error) {
	w := &workbook{meter: &metered{src: src, most: mostDirectory}, size: size, limits: limits, since: 1900}
	f := found{Layout: Layout{Format: XLSX, Rows: -1}}
	if options.Encoding != "" || options.Comma != 0 {
		return f, nil, campaign.Errorf(campaign.CodeInvalidParameter, "a workbook has neither encoding nor delimiter")
	}
	archive, err := zip.NewReader(w.meter, size)
	if err != nil {
		return f, nil, damaged(err)
	}
	w.meter.most = 0
	if err := w.list(archive); err != nil {
		return f, nil, err
	}
	main, err := w.mainPart()
	if err != nil {
		return f, nil, err
	}
	if err := w.readWorkbook(main, options.Sheet, &f); err != nil {
		return f, nil, err
	}
	for suffix, read := range map[string]func(*zip.File) error{"/styles": w.readStyles, "/sharedStrings": w.readTexts} {
		targets, err := w.relationsOf(main, suffix)
		if err != nil {
			return f, nil, err
		}
		for _, target := range targets {
			if err := read(w.parts[target]); err != nil {
				return f, nil, err
			}
		}
	}
	if err := w.layout(&f, options.Header); err != nil {
		return f, nil, err
	}
	return f, w, nil
}

// list takes the archive's entries, and refuses one that is made to do harm.
func (w *workbook) list(archive *zip.Reader) error {
	if len(archive.File) > mostEntries {
		return errMetered
	}
	w.parts = make(map[string]*zip.File, len(archive.File))
	for _, f := range archive.File {
		name := strings.ReplaceAll(f.Name, `\`, "/")
		if strings.HasPrefix(name, "/") || strings.Contains("/"+name+"/", "/../") {
			return campaign.Errorf(campaign.CodeArchiveRejected, "the archive has a file with a path outside of it; save the workbook again")
		}
		if w.parts[name] != nil {
			return campaign.Errorf(campaign.CodeArchiveRejected, "the archive has two files of the same name; save the workbook again")
		}
		w.parts[name] = f
	}
	return nil
}

// mainPart finds the workbook within the archive.
func (w *workbook) mainPart() (string, error) {
	if w.parts["mimetype"] != nil && w.parts["content.xml"] != nil {
		return "", campaign.Errorf(campaign.CodeFormatUnsupported, "the file is an OpenDocument table; save it as .xlsx or .csv")
	}
	if w.parts["xl/workbook.bin"] != nil {
		return "", campaign.Errorf(campaign.CodeFormatUnsupported, "the file is a binary workbook (.xlsb); save it as .xlsx")
	}
	main := "xl/workbook.xml"
	if rels := w.parts["_rels/.rels"]; rels != nil {
		targets, err := w.readRelations(rels, "", "/officeDocument")
		if err != nil {
			return "", err
		}
		for _, target := range targets {
			main = target
		}
	}
	if w.parts[main] == nil {
		return "", campaign.Errorf(campaign.CodeArchiveRejected, "the file is a zip archive and no workbook; unpack it, or compress a text file with gzip")
	}
	return main, nil
}

// scan reads a part as XML. A nil part has nothing.
func (w *workbook) scan(part *zip.File, most int64, each func(*xmlScanner, xmlKind) error) error {
	if part == nil {
		return nil
	}
	in, err := w.open(part, most)
	if err != nil {
		return err
	}
	s := newXMLScanner(in, w.limits.Field)
	for {
		kind, err := s.next()
		if errors.Is(err, io.EOF) {
			return in.Close()
		}
		if err == nil {
			err = each(s, kind)
		}
		if err != nil {
			return errors.Join(err, in.Close())
		}
	}
}

// part reads one file of the archive, within limits.
type part struct {
	io.ReadCloser
	n, most, packed int64
	limits          Limits
}

func (w *workbook) open(f *zip.File, most int64) (*part, error) {
	if f.Flags&1 != 0 {
		return nil, campaign.Errorf(campaign.CodeArchiveRejected, "the archive has a password; save the workbook without one")
	}
	in, err := f.Open()
	if err != nil {
		return nil, damaged(err)
	}
	return &part{ReadCloser: in, most: most, packed: int64(f.CompressedSize64), limits: w.limits}, nil
}

// Close ends the reading. It has nothing to say that Read has not said.
func (p *part) Close() error {
	p.ReadCloser.Close()
	return nil
}

func (p *part) Read(b []byte) (int, error) {
	n, err := p.ReadCloser.Read(b)
	p.n += int64(n)
	if p.n > p.limits.harmless && p.n/p.limits.Ratio > p.packed {
		return 0, campaign.Errorf(campaign.CodeArchiveRejected, "the workbook unpacks to more than %d times its size; save it again, or as .csv", p.limits.Ratio)
	}
	if p.n > p.most {
		return 0, campaign.Errorf(campaign.CodeFileTooLarge, "a part of the workbook has more than %d bytes; save it as .csv", p.most)
	}
	return n, err
}

// relationsOf returns the targets by id of the relations of a part.
func (w *workbook) relationsOf(name, suffix string) (map[string]string, error) {
	folder, base := path.Split(name)
	return w.readRelations(w.parts[folder+"_rels/"+base+".rels"], folder, suffix)
}

// readRelations returns the targets by id of the relations whose type ends in suffix.
func (w *workbook) readRelations(rels *zip.File, folder, suffix string) (map[string]string, error) {
	targets := map[string]string{}
	err := w.scan(rels, mostDirectory, func(s *xmlScanner, kind xmlKind) error {
		if kind != xmlStart || string(s.name) != "Relationship" || !strings.HasSuffix(s.attrText("Type"), suffix) || s.attrText("TargetMode") == "External" {
			return nil
		}
		target := s.attrText("Target")
		if !strings.HasPrefix(target, "/") {
			target = path.Join("/", folder, target)
		}
		targets[s.attrText("Id")] = strings.TrimPrefix(path.Clean(target), "/")
		if len(targets) > mostSheets {
			return campaign.Errorf(campaign.CodeArchiveRejected, "the workbook has more than %d sheets", mostSheets)
		}
		return nil
	})
	return targets, err
}

// readWorkbook lists the sheets and chooses the one called wanted, or the first that is
// not hidden.
func (w *workbook) readWorkbook(main, wanted string, f *found) error {
	targets, err := w.relationsOf(main, "/worksheet")
	if err != nil {
		return err
	}
	type sheet struct {
		name   string
		part   *zip.File
		hidden bool
	}
	var sheets []sheet
	err = w.scan(w.parts[main], mostDirectory, func(s *xmlScanner, kind xmlKind) error {
		if kind != xmlStart {
			return nil
		}
		switch string(s.name) {
		case "workbookPr":
			if on := s.attrText("date1904"); on == "1" || on == "true" {
				w.since = 1904
			}
		case "sheet":
			// A chart has a sheet of its own, which is none of the targets.
			if part := w.parts[targets[s.attrText("id")]]; part != nil {
				sheets = append(sheets, sheet{s.attrText("name"), part, s.attrText("state") != ""})
				f.Sheets = append(f.Sheets, s.attrText("name"))
			}
		}
		return nil
	})
	if err != nil {
		return err
	}
	if len(sheets) == 0 {
		return errXML
	}
	chosen := slices.IndexFunc(sheets, func(s sheet) bool { return s.name == wanted || wanted == "" && !s.hidden })
	if chosen < 0 && wanted == "" {
		chosen = 0
	}
	if chosen < 0 {
		return campaign.Errorf(campaign.CodeInvalidParameter, "the workbook has no sheet %q; it has %s", wanted, strings.Join(f.Sheets[:min(len(f.Sheets), 20)], ", "))
	}
	w.sheet, f.Sheet = sheets[chosen].part, sheets[chosen].name
	return nil
}

// texts are the texts that cells share by number.
type texts struct {
	chunks [][]byte
	places []place
}

type place struct {
	chunk, begin, end uint32
}

const chunkSize = 1 << 20

func (t *texts) add(text []byte) {
	last := len(t.chunks) - 1
	if last < 0 || len(t.chunks[last])+len(text) > cap(t.chunks[last]) {
		t.chunks = append(t.chunks, make([]byte, 0, max(chunkSize, len(text))))
		last++
	}
	begin := len(t.chunks[last])
	t.chunks[last] = append(t.chunks[last], text...)
	t.places = append(t.places, place{uint32(last), uint32(begin), uint32(begin + len(text))})
}

func (t *texts) at(number []byte) ([]byte, bool) {
	i, err := strconv.Atoi(string(number))
	if err != nil || i < 0 || i >= len(t.places) {
		return nil, false
	}
	p := t.places[i]
	return t.chunks[p.chunk][p.begin:p.end], true
}

func (w *workbook) readTexts(part *zip.File) error {
	var item []byte
	var c textCollector
	size := 0
	return w.scan(part, 4*int64(w.limits.texts), func(s *xmlScanner, kind xmlKind) error {
		item = c.take(s, kind, item, w.limits.Field)
		switch {
		case string(s.name) != "si" || kind == xmlText:
		case kind == xmlStart:
			item = item[:0]
		default:
			item = unescape(item)
			if size += len(item) + 12; size > w.limits.texts {
				return campaign.Errorf(campaign.CodeFileTooLarge, "the texts of the workbook have more than %d bytes; save it as .csv", w.limits.texts)
			}
			w.texts.add(item)
		}
		return nil
	})
}

// textCollector puts the runs of a text together, without the readings that East Asian
// programs keep beside it.
type textCollector struct {
	inText, inReading bool
}

// take appends to text what s has come to, as long as it has no more than longest bytes.
func (c *textCollector) take(s *xmlScanner, kind xmlKind, text []byte, longest int) []byte {
	switch {
	case kind == xmlText:
		if c.inText && !c.inReading && len(text) <= longest {
			text = append(text, s.text...)
		}
	case string(s.name) == "t":
		c.inText = kind == xmlStart
	case string(s.name) == "rPh":
		c.inReading = kind == xmlStart
	}
	return text
}

// unescape resolves _x000D_ and its like, in place: characters that XML cannot have.
func unescape(text []byte) []byte {
	out := text[:0]
	for i := 0; i < len(text); i++ {
		if text[i] == '_' && i+6 < len(text) && text[i+1] == 'x' && text[i+6] == '_' {
			if n, err := strconv.ParseUint(string(text[i+2:i+6]), 16, 8); err == nil && n < 0x80 {
				out = append(out, byte(n))
				i += 6
				continue
			}
		}
		out = append(out, text[i])
	}
	return out
}
