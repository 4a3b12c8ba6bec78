package tabular

import (
	"bufio"
	"encoding/binary"
	"io"

	"github.com/parquet-go/parquet-go/encoding/thrift"
	"github.com/parquet-go/parquet-go/format"

	"github.com/musterhq/muster/campaign"
)

// What a part of a Parquet file may have. Programs write pages of about a megabyte.
const (
	mostFooter = 16 << 20
	mostPage   = 64 << 20 // bytes, packed or not; also values
)

// checkFooter looks at the end of the file, which says how long its metadata are.
func (c *columnar) checkFooter() error {
	end := make([]byte, 8)
	if c.size < 12 {
		return damaged(io.ErrUnexpectedEOF)
	}
	if _, err := c.meter.ReadAt(end, c.size-8); err != nil {
		return damaged(err)
	}
	length := int64(binary.LittleEndian.Uint32(end))
	switch {
	case string(end[4:]) == "PARE":
		return campaign.Errorf(campaign.CodeFormatUnsupported, "the Parquet file is encrypted; write it without")
	case string(end[4:]) != string(magicParquet) || length > c.size-12:
		return damaged(io.ErrUnexpectedEOF)
	case length > mostFooter:
		return campaign.Errorf(campaign.CodeArchiveRejected, "the metadata of the Parquet file have %d bytes; %d are allowed", length, mostFooter)
	}
	return nil
}

// checkPages reads the header of every page. The library reserves as much memory as they
// say before it looks at anything else.
func (c *columnar) checkPages() error {
	for _, group := range c.file.Metadata().RowGroups {
		for _, column := range group.Columns {
			m := column.MetaData
			at := m.DataPageOffset
			if m.DictionaryPageOffset > 0 && m.DictionaryPageOffset < at {
				at = m.DictionaryPageOffset
			}
			end := at + m.TotalCompressedSize
			if at < 0 || m.TotalCompressedSize < 0 || end > c.size {
				return damaged(io.ErrUnexpectedEOF)
			}
			for at < end {
				size, err := c.checkPage(at, end)
				if err != nil {
					return err
				}
				at += size
			}
		}
	}
	return nil
}

// checkPage reads the header of the page at a place and returns the page's size with it.
func (c *columnar) checkPage(at, end int64) (int64, error) {
	section := io.NewSectionReader(c.meter, at, end-at)
	buffered := bufio.NewReaderSize(section, 512)
	var header format.PageHeader
	if err := thrift.NewDecoder(new(thrift.CompactProtocol).NewReader(buffered)).Decode(&header); err != nil {
		return 0, damaged(err)
	}
	read, err := section.Seek(0, io.SeekCurrent)
	if err != nil {
		return 0, err
	}
	values := max(header.DataPageHeader.V.NumValues, header.DataPageHeaderV2.V.NumValues, header.DictionaryPageHeader.V.NumValues)
	if header.CompressedPageSize < 0 {
		return 0, damaged(io.ErrUnexpectedEOF)
	}
	if header.CompressedPageSize > mostPage || header.UncompressedPageSize > mostPage || values > mostPage {
		return 0, campaign.Errorf(campaign.CodeArchiveRejected, "a page of the Parquet file has more than %d bytes; write smaller ones", mostPage)
	}
	return read - int64(buffered.Buffered()) + int64(header.CompressedPageSize), nil
}
