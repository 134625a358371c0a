/* Threads: futexes, local storage, cancellation, robust mutexes, atomics. */
#define _GNU_SOURCE
#include <errno.h>
#include <pthread.h>
#include <semaphore.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

enum { THREADS = 4, ROUNDS = 5000 };
static pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t condition = PTHREAD_COND_INITIALIZER;
static pthread_barrier_t barrier;
static long plain;
static atomic_long shared;
static __thread long local;
static int turn;

static void *work(void *argument)
{
    long id = (long)argument;
    pthread_barrier_wait(&barrier);
    for (int i = 0; i < ROUNDS; i++) {
        pthread_mutex_lock(&mutex);
        plain++;
        pthread_mutex_unlock(&mutex);
        atomic_fetch_add(&shared, id);
        local += id;
    }
    return (void *)local;
}

static void *in_turn(void *argument)
{
    int id = (int)(long)argument;
    for (int round = 0; round < 3; round++) {
        pthread_mutex_lock(&mutex);
        while (turn % THREADS != id)
            pthread_cond_wait(&condition, &mutex);
        printf("%d", id);
        turn++;
        pthread_cond_broadcast(&condition);
        pthread_mutex_unlock(&mutex);
    }
    return NULL;
}

static void cleanup(void *argument) { printf("cleaned up %s\n", (char *)argument); }

static void *forever(void *argument)
{
    pthread_cleanup_push(cleanup, argument);
    for (;;)
        pause();
    pthread_cleanup_pop(0);
    return NULL;
}


static volatile sig_atomic_t got;
static pthread_t handled_by;
static void note(int n)
{
    (void)n;
    handled_by = pthread_self();
    got = 1;
}

static void *spin(void *argument)
{
    atomic_int *flag = argument;
    atomic_store(flag, 1);
    while (!got)
        ;
    return (void *)(long)pthread_equal(handled_by, pthread_self());
}

int main(void)
{
    pthread_t threads[THREADS];
    setvbuf(stdout, NULL, _IONBF, 0);
    pthread_barrier_init(&barrier, NULL, THREADS);
    for (long i = 0; i < THREADS; i++)
        pthread_create(&threads[i], NULL, work, (void *)i);
    for (int i = 0; i < THREADS; i++) {
        void *result;
        pthread_join(threads[i], &result);
        printf("thread %d: %ld\n", i, (long)result);
    }
    printf("plain %ld shared %ld own %ld\n", plain, atomic_load(&shared), local);

    for (long i = 0; i < THREADS; i++)
        pthread_create(&threads[i], NULL, in_turn, (void *)i);
    for (int i = 0; i < THREADS; i++)
        pthread_join(threads[i], NULL);
    printf("\n");

    void *result;
    pthread_create(&threads[0], NULL, forever, "the canceled one");
    usleep(20000);
    pthread_cancel(threads[0]);
    pthread_join(threads[0], &result);
    printf("canceled %d\n", result == PTHREAD_CANCELED);


    struct timespec until;
    clock_gettime(CLOCK_REALTIME, &until);
    until.tv_nsec += 30000000;
    if (until.tv_nsec >= 1000000000) {
        until.tv_nsec -= 1000000000;
        until.tv_sec++;
    }
    pthread_mutex_lock(&mutex);
    int waited = pthread_cond_timedwait(&condition, &mutex, &until);
    pthread_mutex_unlock(&mutex);
    printf("timed out %d\n", waited == ETIMEDOUT);

    atomic_int started = 0;
    signal(SIGUSR1, note);
    pthread_create(&threads[0], NULL, spin, &started);
    while (!atomic_load(&started))
        ;
    pthread_kill(threads[0], SIGUSR1);
    pthread_join(threads[0], &result);
    printf("signal in its thread %ld\n", (long)result);

    /* A mutex and a semaphore that processes share. */
    struct {
        pthread_mutex_t mutex;
        sem_t ready;
        long value;
    } *common = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    pthread_mutexattr_t between;
    pthread_mutexattr_init(&between);
    pthread_mutexattr_setpshared(&between, PTHREAD_PROCESS_SHARED);
    pthread_mutex_init(&common->mutex, &between);
    sem_init(&common->ready, 1, 0);
    pid_t child = fork();
    for (int i = 0; i < 2000; i++) {
        pthread_mutex_lock(&common->mutex);
        common->value++;
        pthread_mutex_unlock(&common->mutex);
    }
    if (child == 0) {
        sem_post(&common->ready);
        _exit(0);
    }
    sem_wait(&common->ready);
    waitpid(child, NULL, 0);
    printf("common %ld\n", common->value);

    pthread_setname_np(pthread_self(), "renamed");
    char name[16];
    pthread_getname_np(pthread_self(), name, sizeof name);
    printf("name %s\n", name);
    printf("leader %d\n", getpid() == syscall(SYS_gettid));
    return 0;
}
