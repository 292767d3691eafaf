package controllers

import (
	"k8s.io/client-go/util/workqueue"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"
)

// rateLimited is the queue of a controller.
type rateLimited = workqueue.TypedRateLimitingInterface[reconcile.Request]
