// ethclient: the plan with go-ethereum's own client, over HTTP or WebSocket. usage: ethclient URL PLAN
package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/big"
	"os"
	"strings"
	"time"

	"github.com/ethereum/go-ethereum"
	"github.com/ethereum/go-ethereum/common"
	"github.com/ethereum/go-ethereum/common/hexutil"
	"github.com/ethereum/go-ethereum/core/types"
	"github.com/ethereum/go-ethereum/ethclient"
	"github.com/ethereum/go-ethereum/params"
	"github.com/ethereum/go-ethereum/rpc"
)

type plan struct {
	Recipient, Stranger common.Address
	Value               int64
	Batch               int
	Emitter             hexutil.Bytes
	Topic               common.Hash
	Amount              int64
	Typed               map[string]any
	Unsupported         string
	Malformed           struct {
		Method string
		Params []any
	}
}

type object map[string]any

// transaction is what eth_sendTransaction takes. ethclient itself only sends what is signed already.
type transaction struct {
	From  common.Address  `json:"from"`
	To    *common.Address `json:"to,omitempty"`
	Value *hexutil.Big    `json:"value,omitempty"`
	Gas   hexutil.Uint64  `json:"gas,omitempty"`
	Data  hexutil.Bytes   `json:"input,omitempty"`
}

type session struct {
	context.Context
	*ethclient.Client
}

func (s session) send(given transaction) (hash common.Hash, err error) {
	err = s.Client.Client().CallContext(s, &hash, "eth_sendTransaction", given)
	return hash, err
}

func (s session) mined(hash common.Hash) (*types.Receipt, error) {
	for {
		// NotFound while it is not mined; geth may say for a moment that it is still indexing.
		if receipt, err := s.TransactionReceipt(s, hash); err == nil {
			return receipt, nil
		}
		select {
		case <-s.Done():
			return nil, s.Err()
		case <-time.After(50 * time.Millisecond):
		}
	}
}

func (s session) sendAndWait(given transaction) (*types.Receipt, error) {
	hash, err := s.send(given)
	if err != nil {
		return nil, err
	}
	return s.mined(hash)
}

// failure says what go-ethereum makes of a call that must fail.
func failure(err error) object {
	told := object{"name": fmt.Sprintf("%T", err), "message": fmt.Sprint(err), "code": nil, "reason": nil}
	var coded rpc.Error
	if errors.As(err, &coded) {
		told["code"] = coded.ErrorCode()
	}
	var detailed rpc.DataError
	if errors.As(err, &detailed) {
		if data, ok := detailed.ErrorData().(map[string]any); ok {
			told["reason"] = data["reason"]
		}
	}
	return told
}

func run(s session, p plan, streams bool) (object, error) {
	chainID, err := s.ChainID(s)
	if err != nil {
		return nil, err
	}
	var accounts []common.Address
	if err := s.Client.Client().CallContext(s, &accounts, "eth_accounts"); err != nil {
		return nil, err
	}
	account := accounts[0]
	seen := make(chan *types.Header, 1000)
	if streams {
		subscription, err := s.SubscribeNewHead(s, seen)
		if err != nil {
			return nil, err
		}
		defer subscription.Unsubscribe()
	}

	first, err := s.sendAndWait(transaction{From: account, To: &p.Recipient, Value: (*hexutil.Big)(big.NewInt(p.Value))})
	if err != nil {
		return nil, err
	}
	sent, _, err := s.TransactionByHash(s, first.TxHash)
	if err != nil {
		return nil, err
	}
	from, err := s.TransactionSender(s, sent, first.BlockHash, first.TransactionIndex)
	if err != nil {
		return nil, err
	}

	// There is no function for it; the method is there.
	var signature hexutil.Bytes
	p.Typed["domain"].(map[string]any)["chainId"] = chainID
	if err := s.Client.Client().CallContext(s, &signature, "eth_signTypedData_v4", account, p.Typed); err != nil {
		return nil, err
	}

	hashes := make([]common.Hash, p.Batch)
	batch := make([]rpc.BatchElem, p.Batch)
	for i := range batch {
		small := transaction{From: account, To: &p.Recipient, Value: (*hexutil.Big)(big.NewInt(int64(i))), Gas: 21_000}
		batch[i] = rpc.BatchElem{Method: "eth_sendTransaction", Args: []any{small}, Result: &hashes[i]}
	}
	if err := s.Client.Client().BatchCallContext(s, batch); err != nil {
		return nil, err
	}
	for i, element := range batch {
		if element.Error != nil {
			return nil, element.Error
		}
		if _, err := s.mined(hashes[i]); err != nil {
			return nil, err
		}
	}

	created, err := s.sendAndWait(transaction{From: account, Data: p.Emitter})
	if err != nil {
		return nil, err
	}
	contract := created.ContractAddress
	query := ethereum.FilterQuery{Addresses: []common.Address{contract}, Topics: [][]common.Hash{{p.Topic}}}
	emitted := make(chan types.Log, 1000)
	if streams {
		subscription, err := s.SubscribeFilterLogs(s, query, emitted)
		if err != nil {
			return nil, err
		}
		defer subscription.Unsubscribe()
	}
	called, err := s.sendAndWait(transaction{From: account, To: &contract, Data: common.BigToHash(big.NewInt(p.Amount)).Bytes()})
	if err != nil {
		return nil, err
	}
	if !streams {
		query.FromBlock = called.BlockNumber
		logs, err := s.FilterLogs(s, query)
		if err != nil {
			return nil, err
		}
		for _, one := range logs {
			emitted <- one
		}
		head, err := s.HeaderByNumber(s, nil)
		if err != nil {
			return nil, err
		}
		seen <- head
	}
	var log types.Log
	select {
	case log = <-emitted:
	case <-s.Done():
		return nil, s.Err()
	}
	var heads []uint64
	for len(heads) == 0 || len(seen) > 0 {
		select {
		case head := <-seen:
			heads = append(heads, head.Number.Uint64())
		case <-s.Done():
			return nil, s.Err()
		}
	}

	million := new(big.Int).Mul(big.NewInt(params.Ether), big.NewInt(1_000_000))
	_, unknown := s.send(transaction{From: p.Stranger, To: &p.Recipient, Gas: 21_000})
	_, funds := s.send(transaction{From: account, To: &p.Recipient, Value: (*hexutil.Big)(million), Gas: 21_000})
	_, reverted := s.EstimateGas(s, ethereum.CallMsg{From: account, To: &contract})
	return object{
		"chainId": chainID, "accounts": accounts,
		"sent":  object{"hash": first.TxHash, "from": from, "to": sent.To(), "status": first.Status, "block": first.BlockNumber},
		"typed": signature,
		"batch": object{"hashes": hashes, "ordered": true},
		"heads": heads,
		"log": object{
			"hash": log.TxHash, "called": []common.Hash{called.TxHash}, "address": log.Address, "topics": log.Topics,
			"data": hexutil.Bytes(log.Data), "contract": contract,
		},
		"errors": object{
			"unknownAccount":    failure(unknown),
			"insufficientFunds": failure(funds),
			"revertedEstimate":  failure(reverted),
			"unsupportedMethod": failure(s.Client.Client().CallContext(s, nil, p.Unsupported)),
			"badParams":         failure(s.Client.Client().CallContext(s, nil, p.Malformed.Method, p.Malformed.Params...)),
		},
	}, nil
}

func report(url, path string) (object, error) {
	var p plan
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	if err := json.Unmarshal(text, &p); err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	client, err := ethclient.DialContext(ctx, url)
	if err != nil {
		return nil, err
	}
	defer client.Close()
	return run(session{ctx, client}, p, strings.HasPrefix(url, "ws"))
}

func main() {
	if len(os.Args) != 3 {
		fmt.Fprintln(os.Stderr, "usage: ethclient URL PLAN")
		os.Exit(2)
	}
	seen, err := report(os.Args[1], os.Args[2])
	if err == nil {
		err = json.NewEncoder(os.Stdout).Encode(seen)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}
