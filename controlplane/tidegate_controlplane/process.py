"""The control plane process: puts the rooms together, runs them, and takes them down in order."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from functools import partial

from tidegate.telemetry.traces import open_tracer
from tidegate_controlplane.access.keys import KeyService
from tidegate_controlplane.access.pepper import load_pepper
from tidegate_controlplane.access.quota import Quotas
from tidegate_controlplane.access.replica_token import replica_token
from tidegate_controlplane.app import Services
from tidegate_controlplane.background import background
from tidegate_controlplane.clock import SystemClock
from tidegate_controlplane.data_dir import announced_pid, check_whole, listen, owned, set_aside
from tidegate_controlplane.deployments.planner import Planner
from tidegate_controlplane.deployments.service import Deployments
from tidegate_controlplane.domain.capabilities import LOCAL
from tidegate_controlplane.encryption.envelopes import Envelopes
from tidegate_controlplane.encryption.open import open_keyring, sealing
from tidegate_controlplane.gateway.catalog import Catalog
from tidegate_controlplane.gateway.endpoints import Endpoints
from tidegate_controlplane.gateway.forward import Forwarder
from tidegate_controlplane.gateway.metrics import Metrics
from tidegate_controlplane.gateway.profiler import Profiler
from tidegate_controlplane.gateway.replica_client import ReplicaClient
from tidegate_controlplane.gateway.shadow import Copier
from tidegate_controlplane.gateway.trials import Trials
from tidegate_controlplane.gateway.usage import UsageBook
from tidegate_controlplane.gateway.watch import Watch
from tidegate_controlplane.http_server import serve_http
from tidegate_controlplane.machine import capabilities
from tidegate_controlplane.objects.open import open_objects
from tidegate_controlplane.offers.service import Offers
from tidegate_controlplane.peers.membership import Membership, Parts
from tidegate_controlplane.peers.place import Place
from tidegate_controlplane.peers.refresh import Refresh
from tidegate_controlplane.provision.fleet import Fleet
from tidegate_controlplane.provision.local import LocalProvisioner
from tidegate_controlplane.provision.places import HOLDERS, configured, openers
from tidegate_controlplane.provision.start import SpawningStarter, Starter
from tidegate_controlplane.provision.surroundings import Surroundings
from tidegate_controlplane.provision.zygote_starter import ZygoteStarter, zygote_command
from tidegate_controlplane.reconcile.loop import Reconciler
from tidegate_controlplane.settings import Settings
from tidegate_controlplane.store.database import Database
from tidegate_controlplane.store.migrate import migrate
from tidegate_controlplane.store.open import open_database
from tidegate_controlplane.store.postgres import PostgresDatabase
from tidegate_controlplane.webhooks.deliverer import delivering
from tidegate_controlplane.webhooks.secret import SecretBox
from tidegate_controlplane.webhooks.service import Webhooks
from tidegate_controlplane.work.key_ledger import settle_keys
from tidegate_controlplane.work.service import Work
from tidegate_controlplane.work.worker import Plane


async def serve(settings: Settings, admin_key: str | None = None) -> None:
    """Run until SIGTERM or SIGINT. `admin_key` opens everything from the first moment on.

    Raises StartError when it cannot start.
    """
    settings.data_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
    with (
        owned(settings.lock_path),
        contextlib.closing(listen(settings.host, settings.port)) as listener,
        announced_pid(settings.pid_path),
    ):
        check_whole(settings.restoring_path)
        set_aside(settings.connection_path)
        async with running(settings) as (services, work):
            await serve_http(services, work, listener, admin_key)


@contextlib.asynccontextmanager
async def running(
    settings: Settings, starter: Starter | None = None
) -> AsyncIterator[tuple[Services, Work]]:
    """Every service, started; stopped at the end in the opposite order.

    `starter` makes the replicas' processes; a zygote does when it is absent. Stopping ends the
    replicas, hands unfinished work back to the queue, and closes the books.
    """
    clock = SystemClock()
    async with contextlib.AsyncExitStack() as stack:
        database = await asyncio.to_thread(open_database, settings.database, settings.database_path)
        stack.callback(database.close)
        await asyncio.to_thread(migrate, database.writer)
        keyring = await asyncio.to_thread(open_keyring, settings.encryption, clock)
        plain = await asyncio.to_thread(open_objects, settings)
        objects = sealing(plain, keyring, required=settings.encryption.required)
        pepper = load_pepper(settings.pepper_path)
        token_of = partial(replica_token, pepper)
        await settle_keys(database, objects, keyring, clock)
        client = await stack.enter_async_context(
            ReplicaClient(aws.profile if (aws := settings.aws) else None)
        )
        endpoints = Endpoints(
            clock,
            hold_queue=settings.limits.hold_queue,
            project_hold_queue=settings.limits.project_hold_queue,
        )
        catalog = Catalog()
        tracer = open_tracer(settings.telemetry.otlp_endpoint, "tidegate-controlplane")
        stack.push_async_callback(asyncio.to_thread, tracer.close)
        watch = Watch(Metrics(), clock, tracer)
        watch.metrics.watch_demand(
            lambda: [
                (each.name, endpoints.own_demand(each.deployment_id)) for each in catalog.all()
            ]
        )
        local = LocalProvisioner(
            settings.replicas_dir,
            settings.cache_dir,
            settings.reconcile,
            clock,
            starter or _zygote(settings),
            changed=endpoints.wanted,
            telemetry=settings.telemetry,
            host=settings.replica_host,
            token_of=token_of,
            gpu_starter=SpawningStarter(),
        )
        around = Surroundings(settings, clock, endpoints.wanted, token_of)
        provisioner = Fleet({LOCAL: local}, openers(around), HOLDERS)
        stack.push_async_callback(provisioner.close)
        usage = UsageBook(database, clock)
        await stack.enter_async_context(usage.running())
        machine = capabilities(configured(settings))
        offers = Offers(database, clock)
        market = partial(offers.market, settings.aws.region) if settings.aws else None
        planner = Planner(database, machine, market)
        deployments = Deployments(database, planner, catalog, endpoints, provisioner, clock)
        await deployments.load_catalog()
        copier = Copier(client)
        stack.push_async_callback(copier.close)
        trials = Trials(clock, copier)
        make_reconciler = partial(
            Reconciler,
            provisioner=provisioner,
            endpoints=endpoints,
            bell=deployments.bell,
            clock=clock,
            settings=settings.reconcile,
            trials=trials,
            memory_bytes=machine.memory_bytes,
            metrics=watch.metrics,
        )
        forwarder = Forwarder(endpoints, client, clock, trials, watch)
        plane = Plane(
            db=database,
            objects=objects,
            endpoints=endpoints,
            forwarder=forwarder,
            usage=usage,
            clock=clock,
            settings=settings,
            registry=watch.metrics.registry,
            envelopes=Envelopes(keyring, required=settings.encryption.required),
        )
        box = SecretBox(pepper)
        webhooks = Webhooks(database, box, clock, settings)
        deliverer = await stack.enter_async_context(delivering(database, box, clock, settings))
        webhooks.on_due = deliverer.wake
        work = Work(plane, catalog)
        keys = KeyService(database, pepper, clock)
        parts = Parts(
            database=database,
            endpoints=endpoints,
            catalog=catalog,
            refresh=Refresh(database, deployments, keys, endpoints, work.notices),
            provisioner=provisioner,
            make_reconciler=make_reconciler,
            token_of=token_of,
            clock=clock,
            settings=settings.peers,
            shutdown_s=settings.shutdown_s,
        )
        work.leads = await _reconcile(stack, parts, settings, pepper)
        await stack.enter_async_context(work)
        await _hear_hints(stack, database, work)
        ready = asyncio.Event()
        stack.callback(ready.clear)
        services = Services(
            settings=settings,
            clock=clock,
            database=database,
            endpoints=endpoints,
            catalog=catalog,
            keys=keys,
            quotas=Quotas(clock),
            usage=usage,
            watch=watch,
            forwarder=forwarder,
            profiler=Profiler(catalog, endpoints, client),
            deployments=deployments,
            offers=offers,
            files=work.files,
            batches=work.batches,
            invocations=work.invocations,
            webhooks=webhooks,
            rotation=work.rotation,
            ready=ready,
        )
        yield services, work


async def _reconcile(
    stack: contextlib.AsyncExitStack, parts: Parts, settings: Settings, pepper: bytes
) -> Callable[[], bool]:
    """Begin to reconcile: always on a database of one's own, as the leader on a shared one.

    Returns what says whether this process does.
    """
    if parts.database.shared:
        place = Place.of(settings, pepper)
        membership = Membership(parts, place, settings.pepper_path)
        await stack.enter_async_context(membership)
        return membership.leads
    reconciler = parts.make_reconciler(parts.database)
    await reconciler.recover()
    await stack.enter_async_context(background(reconciler.run(), "reconcile"))
    return lambda: True


async def _hear_hints(stack: contextlib.AsyncExitStack, database: Database, work: Work) -> None:
    """Tell other control planes of queued work, and hear of theirs, where the database can."""
    if not isinstance(database, PostgresDatabase):
        return
    from tidegate_controlplane.store.hints import Hints  # which needs the driver

    hints = Hints(database.url, heard=work.look)
    work.on_queued = hints.say
    await stack.enter_async_context(background(hints.run(), "hints"))


def _zygote(settings: Settings) -> Starter:
    starter = ZygoteStarter(
        settings.zygote_log_path, settings.warm_bytes, zygote_command(settings.telemetry)
    )
    starter.open()
    return starter
