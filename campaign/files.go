package campaign

// The codes of files that cannot be read at all.
const (
	CodeFileTooLarge        Code = "file_too_large"
	CodeArchiveRejected     Code = "archive_rejected"
	CodeEncodingUnsupported Code = "encoding_unsupported"
	CodeFormatUnsupported   Code = "format_unsupported"
	CodeInvalidFile         Code = "invalid_file"
	CodeEmptyFile           Code = "empty_file"
	CodeTooManyColumns      Code = "too_many_columns"
)

// The codes of single rows of a file that cannot be read; the others can.
const (
	CodeFieldCount      Code = "field_count"
	CodeBadQuote        Code = "bad_quote"
	CodeUnclosedQuote   Code = "unclosed_quote"
	CodeInvalidBytes    Code = "invalid_bytes"
	CodeNULByte         Code = "nul_byte"
	CodeRowTooLong      Code = "row_too_long"
	CodeFieldTooLong    Code = "field_too_long"
	CodeCellError       Code = "cell_error"
	CodeDuplicateColumn Code = "duplicate_column"
	CodeBlankColumn     Code = "blank_column"
)
