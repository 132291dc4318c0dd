// Package http sends requests to the origins in the manifest's [http]. Not for filters. Grant: http.
package http

import (
	"skylark"
	"skylark/internal/values"
	wit "skylark/internal/wit/skylark_plugin_http"
)

// Request is an HTTP request.
type Request = wit.Request

// Response is an HTTP response. A redirect is a response like any other: it is not followed.
type Response = wit.Response

// Send sends one request and waits for its response.
func Send(request Request) (Response, error) {
	result := wit.Send(request)
	if result.Tag() == values.ResultOk {
		return result.Ok(), nil
	}
	switch err := result.Err(); err.Tag() {
	case wit.ErrorDenied:
		return Response{}, &skylark.Error{Name: "denied", Detail: err.Denied()}
	case wit.ErrorInvalid:
		return Response{}, &skylark.Error{Name: "invalid", Detail: err.Invalid()}
	case wit.ErrorUnreachable:
		return Response{}, &skylark.Error{Name: "unreachable", Detail: err.Unreachable()}
	case wit.ErrorTimeout:
		return Response{}, &skylark.Error{Name: "timeout"}
	case wit.ErrorTooLarge:
		return Response{}, &skylark.Error{Name: "too-large"}
	case wit.ErrorBroken:
		return Response{}, &skylark.Error{Name: "broken", Detail: err.Broken()}
	default:
		return Response{}, &skylark.Error{Name: "busy"}
	}
}
