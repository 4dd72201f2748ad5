"""Places an order at a host, with the client that was generated from its OpenAPI document:

    client.py URL
"""

import sys

from shop import Client
from shop.api.inventory import inventory_product_products_id, product_register
from shop.api.order import order_create, order_order_orders_id
from shop.api.report import report_orders_reports_orders
from shop.models import (
    CommandOrderCreate,
    CommandOrderCreateAddress,
    CommandOrderCreateLinesItem,
    CommandOrderCreatePaymentItem,
    CommandProductRegister,
    Problem,
    ReplyOrder,
    ViewOrder,
    ViewProduct,
)

client = Client(base_url=sys.argv[1])

tea = CommandProductRegister(name="Tea", unit_price=300, quantity=10)
registered = product_register.sync_detailed("tea", client=client, body=tea)
assert registered.status_code == 201 and registered.headers["location"] == "/products/tea", registered
again = product_register.sync("tea", client=client, body=tea)
assert isinstance(again, Problem) and again.code == "already-exists", again

wanted = CommandOrderCreate(
    user_id="ada",
    lines=[CommandOrderCreateLinesItem(product_id="tea", quantity=2)],
    payment=[CommandOrderCreatePaymentItem(method="card", share="1")],
    address=CommandOrderCreateAddress(region="north", line="1 Quay Street"),
)
placed = order_create.sync(client=client, body=wanted, idempotency_key="cart-7", prefer="wait=30")
assert isinstance(placed, ReplyOrder) and isinstance(placed.state, ViewOrder), placed
assert placed.saga.state == "completed" and placed.state.status == "confirmed", placed

order = order_order_orders_id.sync(placed.id, client=client, kontor_position=placed.position)
assert isinstance(order, ViewOrder) and order.total == 600 and order.lines[0].quantity == 2, order
product = inventory_product_products_id.sync("tea", client=client)
assert isinstance(product, ViewProduct) and (product.available, product.reserved) == (8, 2), product
reported = report_orders_reports_orders.sync(
    client=client, product_id="tea", limit=5, kontor_position=placed.position, prefer="wait=30"
)
assert [item.id for item in reported.items] == [placed.id] and reported.next_ is None, reported
