package api

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"iter"
	"strings"

	"github.com/musterhq/muster/campaign"
	"github.com/musterhq/muster/store"
)

func listOf(l store.List) CustomerList {
	return CustomerList{
		ID: l.ID, Unit: l.Unit, Name: l.Name, Version: l.Version, Kind: string(l.Kind), State: string(l.State), Members: l.Members, Digest: l.Digest,
		CampaignID: l.Origin.CampaignID, With: l.Origin.With, Without: l.Origin.Without,
		CreatedAt: l.CreatedAt, PublishedAt: l.PublishedAt, RetiredAt: l.RetiredAt,
	}
}

// ListLists implements the operation.
func (s *Server) ListLists(ctx context.Context, in ListListsRequestObject) (ListListsResponseObject, error) {
	limit, after := limitOf(in.Params.Limit)+1, ""
	if _, err := decodeCursor("lists", in.Params.Cursor, &after); err != nil {
		return nil, err
	}
	all, err := s.store.Lists(ctx, requestOf(ctx).units, after, limit)
	if err != nil {
		return nil, err
	}
	page := CustomerListPage{Items: []CustomerList{}}
	if len(all) == limit {
		all = all[:limit-1]
		if page.Next, err = encodeCursor("lists", all[len(all)-1].ID); err != nil {
			return nil, err
		}
	}
	for _, l := range all {
		page.Items = append(page.Items, listOf(l))
	}
	return ListLists200JSONResponse(page), nil
}

// CreateList implements the operation.
func (s *Server) CreateList(ctx context.Context, in CreateListRequestObject) (CreateListResponseObject, error) {
	r, b := requestOf(ctx), in.Body
	l := store.List{ID: r.resultID, Unit: b.Unit, Name: b.Name, Kind: store.ListKind(b.Kind)}
	ofResult := l.Kind == store.ListCampaignResult
	if ofResult != (b.CampaignID != "") || !ofResult && len(b.With)+len(b.Without) > 0 {
		return nil, faults([]campaign.FieldError{{Field: "campaign_id", Code: campaign.CodeInvalidParameter, Message: "a list of kind campaign_result has one, and with and without; others have none"}})
	}
	if ofResult {
		of, err := s.store.Campaign(ctx, b.CampaignID)
		if err != nil {
			return nil, err
		}
		if _, err := s.policies.Require(r.user.ID, campaign.ActTargetRead, of.Unit, 0); err != nil {
			return nil, s.refuse(ctx, r, of.ID, campaign.Errorf(campaign.CodeNotFound, "there is no such campaign"))
		}
		l.Origin = store.ListOrigin{CampaignID: of.ID, With: b.With, Without: b.Without}
	}
	l, err := s.store.CreateList(ctx, l, r.user.Actor())
	if err != nil {
		return nil, err
	}
	return CreateList201JSONResponse(listOf(l)), nil
}

// reachList returns a list of the units where the caller may do what they ask for. Any other
// is not found, as one that does not exist.
func (s *Server) reachList(ctx context.Context, id string) (store.List, error) {
	r := requestOf(ctx)
	l, err := s.store.List(ctx, id)
	if err == nil && !within(l.Unit, r.units) {
		err = campaign.Errorf(campaign.CodeNotFound, "there is no such list")
	}
	return l, s.refuse(ctx, r, "", err)
}

// GetList implements the operation.
func (s *Server) GetList(ctx context.Context, in GetListRequestObject) (GetListResponseObject, error) {
	l, err := s.reachList(ctx, in.ListID)
	if err != nil {
		return nil, err
	}
	return GetList200JSONResponse(listOf(l)), nil
}

// PublishList implements the operation.
func (s *Server) PublishList(ctx context.Context, in PublishListRequestObject) (PublishListResponseObject, error) {
	l, err := s.reachList(ctx, in.ListID)
	if err == nil {
		l, err = s.store.PublishList(ctx, l.ID, requestOf(ctx).user.Actor())
	}
	if err != nil {
		return nil, err
	}
	return PublishList200JSONResponse(listOf(l)), nil
}

// RetireList implements the operation.
func (s *Server) RetireList(ctx context.Context, in RetireListRequestObject) (RetireListResponseObject, error) {
	l, err := s.reachList(ctx, in.ListID)
	if err == nil {
		l, err = s.store.RetireList(ctx, l.ID, requestOf(ctx).user.Actor())
	}
	if err != nil {
		return nil, err
	}
	return RetireList200JSONResponse(listOf(l)), nil
}

// AddListMembers implements the operation.
func (s *Server) AddListMembers(ctx context.Context, in AddListMembersRequestObject) (AddListMembersResponseObject, error) {
	l, err := s.reachList(ctx, in.ListID)
	if err != nil {
		return nil, err
	}
	faults := told{}
	tell := func(line int64, fault campaign.FieldError) error {
		faults.add("", line, fault)
		return nil
	}
	r, rows := requestOf(ctx), members(in.Body, in.Params.Header)
	var added store.MembersAdded
	if key := store.MemberKey(in.Params.By); key == store.MemberPhone {
		var quota int64
		if quota, err = s.quota(r, l.Unit); err == nil {
			added, err = s.store.AddNumbers(ctx, l.ID, quota, rows, tell, r.user.Actor())
		}
	} else {
		added, err = s.store.AddMembers(ctx, l.ID, key, rows, tell, r.user.Actor())
	}
	if err != nil {
		return nil, s.refuse(ctx, r, "", err)
	}
	return AddListMembers200JSONResponse{Lines: added.Lines, Added: added.Added, Duplicate: added.Duplicate, Rejected: added.Rejected, Faults: faults}, nil
}

// longestMember is the most bytes of a line that names a member.
const longestMember = 4096

// members reads one member a line: the key, and after a comma the arm. What is too long for a
// line keeps its place and is no member; no more than one line is held in memory.
func members(in io.Reader, header bool) iter.Seq2[store.Member, error] {
	return func(yield func(store.Member, error) bool) {
		r := bufio.NewReaderSize(in, longestMember)
		for line := int64(1); ; line++ {
			text, err := r.ReadSlice('\n')
			read := string(text)
			if errors.Is(err, bufio.ErrBufferFull) {
				read = strings.Repeat("?", longestMember)
				for errors.Is(err, bufio.ErrBufferFull) {
					_, err = r.ReadSlice('\n')
				}
			}
			if err != nil && !errors.Is(err, io.EOF) {
				yield(store.Member{}, fmt.Errorf("read members: %w", err))
				return
			}
			if line == 1 {
				read = strings.TrimPrefix(read, "\ufeff")
			}
			if m, some := member(read, line); some && (!header || line > 1) && !yield(m, nil) {
				return
			}
			if err != nil {
				return
			}
		}
	}
}

// member reads a line, and reports whether there is anything in it.
func member(text string, line int64) (store.Member, bool) {
	text = strings.TrimSpace(text)
	key, arm, _ := strings.Cut(text, ",")
	unquote := func(cell string) string {
		cell = strings.TrimSpace(cell)
		if n := len(cell); n > 1 && cell[0] == '"' && cell[n-1] == '"' {
			return strings.ReplaceAll(cell[1:n-1], `""`, `"`)
		}
		return cell
	}
	return store.Member{Line: line, Key: unquote(key), Arm: unquote(arm)}, text != ""
}
