/* Threads, signals and system calls for a debugger to stop at. */
#include <pthread.h>
#include <signal.h>
#include <stdio.h>

volatile int shared;
volatile long counter;
volatile int last;
static pthread_barrier_t barrier;

static void handler(int number)
{
    (void)number;
    shared += 100;
}

__attribute__((noinline)) int square(int x)
{
    counter++;
    return x * x;
}

static void *worker(void *argument)
{
    long me = (long)argument;
    pthread_barrier_wait(&barrier);
    for (int i = 0; i < 3; i++) {
        int result = square(me + i);
        __sync_fetch_and_add(&shared, result);
    }
    return 0;
}

int main(void)
{
    pthread_t threads[3];
    signal(SIGUSR1, handler);
    pthread_barrier_init(&barrier, 0, 3);
    for (long i = 0; i < 3; i++)
        pthread_create(&threads[i], 0, worker, (void *)(i + 1));
    for (int i = 0; i < 3; i++)
        pthread_join(threads[i], 0);
    printf("shared %d\n", shared);
    last = 5;
    last = 6;
    raise(SIGUSR1);
    printf("then %d\n", shared);
    return 3;
}
